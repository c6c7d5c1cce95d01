//! MD5 (RFC 1321) of several short texts at once: one after the other, each step waits for the one
//! before it; side by side, they fill the processor's vectors.
//!
//! No intrinsics: the loop over the lanes is one that the compiler turns into vector instructions.

use super::HashKey;

/// Texts at a time.
pub(super) const LANES: usize = 8;
/// Longest text that is one block, with the end mark and the length behind it.
pub(super) const SHORT_BYTES_MAX: usize = 55;

/// A word of each lane.
type Word = [u32; LANES];

const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// The whole parts of 2^32 times the sines of 1 to 64 radians.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

/// Sixteen steps, written out so that the loop they are in is one of straight lines.
macro_rules! round {
    ($state:ident, $block:ident[$lane:ident], $from:literal, $turns:expr, $mix:expr, $($word:literal)*) => {
        let mut n = 0;
        $(
            let [a, b, c, d] = $state;
            let sum = a
                .wrapping_add($mix(b, c, d))
                .wrapping_add($block[$word][$lane])
                .wrapping_add(SINES[$from + n]);
            $state = [d, b.wrapping_add(sum.rotate_left($turns[n % 4])), b, c];
            n += 1;
        )*
        let _ = n;
    };
}

/// The hash keys of up to [`LANES`] texts; those of lanes without one are of no meaning. The caller's
/// duty: no text is longer than [`SHORT_BYTES_MAX`].
pub(super) fn hash_keys(texts: &[&[u8]]) -> [HashKey; LANES] {
    let mut block: [Word; 16] = [[0; LANES]; 16];
    for (lane, text) in texts.iter().take(LANES).enumerate() {
        let mut bytes = [0; 64];
        bytes[..text.len()].copy_from_slice(text);
        bytes[text.len()] = 0x80;
        bytes[56..].copy_from_slice(&(text.len() as u64 * 8).to_le_bytes());
        for (word, bytes) in block.iter_mut().zip(bytes.chunks_exact(4)) {
            word[lane] = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    let [a, b, c, d] = compress(&block);
    std::array::from_fn(|lane| {
        let words = [a[lane], b[lane], c[lane], d[lane]];
        let join = |key: u128, word: u32| key << 32 | u128::from(word.swap_bytes());
        HashKey(words.into_iter().fold(0, join))
    })
}

#[allow(clippy::needless_range_loop, reason = "a loop over the lanes is what becomes vectors")]
fn compress(block: &[Word; 16]) -> [Word; 4] {
    let mut out = [[0; LANES]; 4];
    let [out_a, out_b, out_c, out_d] = &mut out;
    for lane in 0..LANES {
        let mut state = START;
        round!(state, block[lane], 0, [7, 12, 17, 22], |b: u32, c: u32, d: u32| d ^ (b & (c ^ d)),
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        round!(state, block[lane], 16, [5, 9, 14, 20], |b: u32, c: u32, d: u32| c ^ (d & (b ^ c)),
            1 6 11 0 5 10 15 4 9 14 3 8 13 2 7 12);
        round!(state, block[lane], 32, [4, 11, 16, 23], |b: u32, c: u32, d: u32| b ^ c ^ d,
            5 8 11 14 1 4 7 10 13 0 3 6 9 12 15 2);
        round!(state, block[lane], 48, [6, 10, 15, 21], |b: u32, c: u32, d: u32| c ^ (b | !d),
            0 7 14 5 12 3 10 1 8 15 6 13 4 11 2 9);
        out_a[lane] = state[0].wrapping_add(START[0]);
        out_b[lane] = state[1].wrapping_add(START[1]);
        out_c[lane] = state[2].wrapping_add(START[2]);
        out_d[lane] = state[3].wrapping_add(START[3]);
    }
    out
}
