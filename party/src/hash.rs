//! BLAKE2b as the Hypercore stack uses it: plain, keyed, and the derived *namespaces* that keep one use of
//! a hash or signature from being taken for another.

/// A 32-byte BLAKE2b digest.
pub type Hash = [u8; 32];

/// BLAKE2b-256 over the concatenation of `parts`.
pub fn hash(parts: &[&[u8]]) -> Hash {
    digest(blake2b_simd::Params::new().hash_length(32), parts)
}

/// BLAKE2b-256 over the concatenation of `parts`, keyed with `key`, which may have 1 to 64 bytes; what is
/// longer is an error of the program and cut off.
pub fn keyed_hash(key: &[u8], parts: &[&[u8]]) -> Hash {
    let key = &key[..key.len().min(64)];
    digest(blake2b_simd::Params::new().hash_length(32).key(key), parts)
}

/// The `id`-th namespace of `name`: BLAKE2b-256 of BLAKE2b-256(`name`) and the one byte `id`, as
/// `hypercore-crypto` derives them.
//= OVER-3
pub fn namespace(name: &str, id: u8) -> Hash {
    hash(&[&hash(&[name.as_bytes()]), &[id]])
}

fn digest(params: &blake2b_simd::Params, parts: &[&[u8]]) -> Hash {
    let mut state = params.to_state();
    for part in parts {
        state.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_of_parts_is_the_hash_of_their_concatenation() {
        assert_eq!(hash(&[b"ab", b"", b"c"]), hash(&[b"abc"]));
        assert_ne!(hash(&[b"abc"]), keyed_hash(b"k", &[b"abc"]));
    }

    #[test]
    fn namespaces_of_one_name_differ() {
        assert_ne!(namespace("hypercore", 0), namespace("hypercore", 1));
    }
}
