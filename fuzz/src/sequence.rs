//! Sequence numbers.

use hydrant_core::sequence::SequenceNumber;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((one, two)) = text.split_once('\n') else {
        read(text);
        return;
    };
    if let (Some(one), Some(two)) = (read(one), read(two))
        && (one.shard, one.shard_created_s) == (two.shard, two.shard_created_s)
    {
        // Within a shard the order of the numbers is that of the texts, as clients compare them.
        let (a, b) = (one.to_string(), two.to_string());
        assert_eq!(one.index.cmp(&two.index).is_lt(), one.index < two.index);
        if one.index != two.index {
            assert_eq!((a.len(), &a).cmp(&(b.len(), &b)), one.index.cmp(&two.index));
        }
    }
}

/// What is read is written again, but for zeros in front.
fn read(text: &str) -> Option<SequenceNumber> {
    let number: SequenceNumber = text.parse().ok()?;
    let written = number.to_string();
    assert_eq!(written, text.trim_start_matches('0'));
    assert_eq!(written.parse(), Ok(number));
    Some(number)
}
