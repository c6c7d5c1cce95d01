//! The patterns of LIKE, as SHOW has them.

/// Whether a name matches a LIKE pattern; SHOW's LIKE does not look at case.
pub(crate) fn like(pattern: &str, name: &str) -> bool {
    fn matches(p: &[char], n: &[char]) -> bool {
        // Greedy with one place to come back to: linear in practice, never recursive.
        let (mut pi, mut ni, mut back) = (0, 0, None);
        while ni < n.len() {
            match p.get(pi) {
                Some('%') => {
                    back = Some((pi, ni));
                    pi += 1;
                }
                Some('\\') if p.get(pi + 1) == Some(&n[ni]) => {
                    pi += 2;
                    ni += 1;
                }
                Some(c) if *c == '_' || *c == n[ni] => {
                    pi += 1;
                    ni += 1;
                }
                _ => match back {
                    Some((at, from)) => {
                        pi = at + 1;
                        ni = from + 1;
                        back = Some((at, from + 1));
                    }
                    None => return false,
                },
            }
        }
        p[pi..].iter().all(|c| *c == '%')
    }
    let fold = |s: &str| s.to_lowercase().chars().collect::<Vec<_>>();
    matches(&fold(pattern), &fold(name))
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn like_knows_any_and_one() {
        assert!(like("TW%_S", "tweets"));
        assert!(like("%", ""));
        assert!(like("a%b%c", "AxxBxxbC"));
        assert!(!like("a_", "a"));
        assert!(like("a\\_b", "A_B"));
        assert!(!like("a\\_b", "AxB"));
    }
}
