//! Words that an expression may not use as a name without a placeholder.
//!
//! The list is "Reserved words in DynamoDB" of the developer guide.

use std::collections::HashSet;
use std::sync::LazyLock;

static WORDS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("reserved.txt").split_whitespace().collect());

/// Whether the name, in any case, is such a word.
pub(super) fn is_reserved(name: &str) -> bool {
    WORDS.contains(name.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        assert_eq!(WORDS.len(), 573);
        assert!(is_reserved("name") && is_reserved("Zone") && !is_reserved("leaseKey"));
    }
}
