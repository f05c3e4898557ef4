//! The pages: which sentences they have, and whether each that binds has an id.

/// How much a sentence binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// MUST or MUST NOT.
    Must,
    /// SHOULD or SHOULD NOT.
    Should,
    /// MAY.
    May,
}

/// A sentence with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Such as `MUX-7`.
    pub id: String,
    /// By which word it binds.
    pub force: Force,
    /// In which line of the page its id stands, from 1 on.
    pub line: usize,
}

/// What a page says.
#[derive(Debug, Default)]
pub struct Page {
    /// The file's name.
    pub name: String,
    /// Its sentences, in their order.
    pub sentences: Vec<Sentence>,
    /// Ids that are not used any more.
    pub retired: Vec<String>,
    /// Ids that it speaks of elsewhere.
    pub mentioned: Vec<(usize, String)>,
    /// The anchors of its headings, made as GitHub makes them.
    pub anchors: Vec<String>,
    /// Where it links to within the specification: `page.md`, `page.md#anchor` or `#anchor`.
    pub links: Vec<(usize, String)>,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// The section that says what the words mean, and so uses them without an id.
const ABOUT_WORDS: &str = "Words and ids";
/// The section at a page's end that lists the ids that are not used any more.
const RETIRED: &str = "Retired";

/// What stands in a page, one after the other.
enum Token {
    Word(Force),
    /// An id in brackets, which ends its sentence.
    Id(String),
    /// An id that is spoken of.
    Mention(String),
}

impl Page {
    /// Reads a page.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut page = Self { name: name.to_owned(), ..Self::default() };
        let mut open: Vec<(usize, Force)> = Vec::new();
        let (mut section, mut fenced) = (String::new(), false);
        for (at, line) in text.lines().enumerate() {
            let at = at + 1;
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            }
            if fenced || line.trim_start().starts_with("```") {
                continue;
            }
            if let Some(heading) = heading(line) {
                page.close(&mut open);
                page.anchors.push(anchor(heading));
                section = heading.to_owned();
                continue;
            }
            page.links.extend(links(line).map(|link| (at, link)));
            let begins_anew = line.trim().is_empty() || is_item(line) || line.starts_with('|');
            if begins_anew {
                page.close(&mut open);
            }
            let cells: Vec<&str> = match line.starts_with('|') {
                true => line.split('|').collect(),
                false => vec![line],
            };
            for cell in cells {
                for token in tokens(cell) {
                    page.take(token, at, &section, &mut open);
                }
                if line.starts_with('|') {
                    page.close(&mut open);
                }
            }
        }
        page.close(&mut open);
        page
    }

    fn take(&mut self, token: Token, at: usize, section: &str, open: &mut Vec<(usize, Force)>) {
        match token {
            Token::Word(_) if section == ABOUT_WORDS => {}
            Token::Word(force) => open.push((at, force)),
            Token::Id(id) | Token::Mention(id) if section == RETIRED => self.retired.push(id),
            Token::Mention(id) => self.mentioned.push((at, id)),
            Token::Id(id) => {
                match open.as_slice() {
                    [(_, force)] => self.sentences.push(Sentence { id, force: *force, line: at }),
                    [] => self.fault(at, &format!("{id} ends a sentence that doesn't bind")),
                    more => {
                        let count = more.len();
                        self.fault(
                            at,
                            &format!("{id} ends a sentence with {count} words that bind, not one"),
                        );
                    }
                }
                open.clear();
            }
        }
    }

    /// Ends a paragraph, an item or a cell.
    fn close(&mut self, open: &mut Vec<(usize, Force)>) {
        for (at, _) in std::mem::take(open) {
            self.fault(at, "a sentence that binds has no id");
        }
    }

    fn fault(&mut self, at: usize, what: &str) {
        self.faults.push(format!("{}:{at}: {what}", self.name));
    }
}

fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    (rest.len() < line.len()).then(|| rest.strip_prefix(' ')).flatten()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_ascii_alphanumeric() || " _-".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with("- ") || (number.len() < line.len() && number.starts_with(". "))
}

/// Links to pages of the specification and to headings.
fn links(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split("](").skip(1).filter_map(|rest| {
        let link = rest.split(')').next()?;
        let file = link.split('#').next()?;
        let is_ours =
            !link.contains('/') && (file.is_empty() || file.ends_with(".md") || file.ends_with(".proto"));
        is_ours.then(|| link.to_owned())
    })
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut before = "";
    for piece in text.split_inclusive(|c: char| !is_part(c)) {
        let word = piece.trim_end_matches(|c: char| !is_part(c));
        match word {
            "MUST" => tokens.push(Token::Word(Force::Must)),
            "SHOULD" => tokens.push(Token::Word(Force::Should)),
            "MAY" => tokens.push(Token::Word(Force::May)),
            _ if is_id(word) && before.ends_with('[') && piece.ends_with(']') => {
                tokens.push(Token::Id(word.to_owned()));
            }
            _ if is_id(word) => tokens.push(Token::Mention(word.to_owned())),
            _ => {}
        }
        before = piece;
    }
    tokens
}

/// Whether a word is an id: capitals, a hyphen, a number without leading zeros.
pub(super) fn is_id(word: &str) -> bool {
    let Some((prefix, number)) = word.split_once('-') else { return false };
    super::PREFIXES.contains(&prefix)
        && !number.is_empty()
        && !number.starts_with('0')
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(page: &Page) -> Vec<&str> {
        page.sentences.iter().map(|sentence| sentence.id.as_str()).collect()
    }

    #[test]
    fn each_sentence_ends_with_its_id() {
        let text = "# A page\n\nA peer MUST speak. `[MUX-1]` It SHOULD NOT shout, or\nso. `[MUX-2]`\n\n- It MAY go. `[MUX-3]`\n";
        let page = Page::parse("page.md", text);
        assert_eq!(page.faults, [""; 0]);
        assert_eq!(ids(&page), ["MUX-1", "MUX-2", "MUX-3"]);
        let forces: Vec<Force> = page.sentences.iter().map(|sentence| sentence.force).collect();
        assert_eq!(forces, [Force::Must, Force::Should, Force::May]);
        assert_eq!(page.sentences[1].line, 4);
    }

    #[test]
    fn a_must_without_an_id_is_found() {
        for text in [
            "A peer MUST speak.",
            "A peer MUST speak.\n\nIt is. `[MUX-1]`",
            "- It MAY go.\n- It goes. `[MUX-1]`",
        ] {
            let page = Page::parse("page.md", text);
            assert!(page.faults[0].contains("has no id"), "{text}: {:?}", page.faults);
        }
        let row = Page::parse("page.md", "| a peer MUST speak | it is `[MUX-1]` |");
        assert!(row.faults[0].contains("has no id"), "{:?}", row.faults);
    }

    #[test]
    fn a_sentence_that_says_two_things_or_none_is_found() {
        let two = Page::parse("page.md", "A peer MUST speak and MUST NOT shout. `[MUX-1]`");
        assert!(two.faults[0].contains("with 2 words"), "{:?}", two.faults);
        let none = Page::parse("page.md", "A peer speaks. `[MUX-1]`");
        assert!(none.faults[0].contains("doesn't bind"), "{:?}", none.faults);
    }

    #[test]
    fn what_the_words_mean_and_what_is_code_needs_no_id() {
        let text = "## Words and ids\n\nThe word MUST binds.\n\n## More\n\n```text\nMUST\n```\n";
        assert_eq!(Page::parse("page.md", text).faults, [""; 0]);
    }

    #[test]
    fn retired_and_mentioned_ids_are_no_sentences() {
        let page =
            Page::parse("page.md", "As MUX-4 says.\n\n## Retired\n\n- MUX-2: said the same as MUX-1\n");
        assert_eq!(page.mentioned, [(1, "MUX-4".to_owned())]);
        assert_eq!(page.retired[0], "MUX-2");
        assert!(page.sentences.is_empty());
    }

    #[test]
    fn anchors_and_links_are_those_of_github() {
        let text = "## range (8), want (5)\n\n[here](#more) and [there](02-encoding.md#trees), [away](https://a.b/c.md)\n";
        let page = Page::parse("page.md", text);
        assert_eq!(page.anchors, ["range-8-want-5"]);
        assert_eq!(page.links, [(3, "#more".to_owned()), (3, "02-encoding.md#trees".to_owned())]);
    }
}
