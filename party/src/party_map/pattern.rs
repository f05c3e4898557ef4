//! Patterns of names.

/// Whether `name` is what `pattern` says, in which `*` stands for any characters and `?` for one. It takes time that is
/// proportional to the product of the lengths, whatever they are made of.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    // `reached[n]`: the pattern so far matches the first n characters of the name.
    let name: Vec<char> = name.chars().collect();
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for part in pattern {
        let mut next = vec![false; name.len() + 1];
        if part == '*' {
            let mut any = false;
            for (next, reached) in next.iter_mut().zip(&reached) {
                any |= reached;
                *next = any;
            }
        } else {
            for (n, found) in name.iter().enumerate() {
                next[n + 1] = reached[n] && (part == '?' || part == *found);
            }
        }
        reached = next;
    }
    reached[name.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "anything"),
            ("kit*", "kitchen"),
            ("*/chat", "a/chat"),
            ("k?t", "kät"),
            ("**a**", "a"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("", "a"), ("?", ""), ("kit*", "Kitchen"), ("*/chat", "a/chats"), ("k?t", "kt")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
