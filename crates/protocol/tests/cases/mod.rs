//! Cases of wire input, as files.

mod corpus;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corpus::spelled;

fn cases(wire: &str, kind: &str) -> Vec<PathBuf> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    corpus::cases(&corpus, wire, kind)
}

/// Bytes as messages and `.out` files have them.
pub fn shown(bytes: &[u8]) -> String {
    let shown = bytes.escape_ascii().to_string();
    if shown.len() > 200 {
        format!("{}... ({} bytes)", &shown[..100], bytes.len())
    } else {
        shown
    }
}

/// What `tell` makes of each case against the `.out` file beside it. With `BLESS=1` in the environment that is written.
pub fn compare(wire: &str, kind: &str, tell: impl Fn(&[u8]) -> String) {
    let mut wrong = Vec::new();
    for path in cases(wire, kind) {
        let told = tell(&spelled(&fs::read_to_string(&path).unwrap()));
        assert_eq!(
            told.contains("refused: "),
            kind == "invalid",
            "{}: {told}",
            path.display()
        );
        let beside = path.with_extension("out");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &told).unwrap();
        } else if fs::read_to_string(&beside).ok().as_deref() != Some(&told) {
            wrong.push(format!("{}:\n{told}", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "not what the .out files say:\n{}",
        wrong.join("\n")
    );
}

/// What is found in each case must be the same however it is split up.
pub fn split<T: PartialEq + Debug>(wire: &str, found: impl Fn(&[&[u8]]) -> T) {
    for path in ["valid", "invalid"]
        .into_iter()
        .flat_map(|kind| cases(wire, kind))
    {
        let bytes = spelled(&fs::read_to_string(&path).unwrap());
        let whole = found(&[&bytes[..]]);
        // Every split of the long ones would take minutes, and shows nothing new.
        let step = 1 + bytes.len() / 2000;
        for at in (0..bytes.len()).step_by(step) {
            let (start, end) = bytes.split_at(at);
            assert_eq!(found(&[start, end]), whole, "{} split at {at}", path.display());
        }
        for length in [1 + bytes.len() / 20_000, 7] {
            let pieces: Vec<_> = bytes.chunks(length).collect();
            assert_eq!(found(&pieces), whole, "{} by {length}", path.display());
        }
    }
}

/// Breaks the cases at random for a while, and looks that what is found still does not depend on splits, and that `found`
/// does not panic. `WASGI_FUZZ_SECONDS` makes it a longer run, `WASGI_SEED` repeats one that failed.
pub fn mutate<T: PartialEq + Debug>(wire: &str, found: impl Fn(&[&[u8]]) -> T) {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(number("WASGI_FUZZ_SECONDS", 1));
    let seed = number("WASGI_SEED", u64::from(std::process::id()));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let kinds = ["valid", "invalid"].into_iter();
    let mut inputs: Vec<_> = kinds
        .flat_map(|kind| cases(wire, kind))
        .map(|path| spelled(&fs::read_to_string(path).unwrap()))
        .collect();
    // A long one takes the time of hundreds.
    inputs.retain(|input| input.len() < 2000);
    let mut rounds = 0;
    while Instant::now() < end {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..=random.below(4) {
            let (at, other) = (random.below(input.len() + 1), random.below(input.len() + 1));
            let (from, to) = (at.min(other), at.max(other).min(at.min(other) + 64));
            match random.below(6) {
                0 => input.insert(at, random.below(256) as u8),
                1 => drop(input.drain(from..to)),
                2 => {
                    let again = input[from..to].to_vec();
                    input.splice(other..other, again);
                }
                3 => {
                    let foreign = &inputs[random.below(inputs.len())];
                    let start = random.below(foreign.len() + 1);
                    let end = foreign.len().min(start + 64);
                    input.splice(at..at, foreign[start..end].iter().copied());
                }
                _ if at < input.len() => {
                    // Small changes hit lengths.
                    let by = [1, 255, 128, random.below(256) as u8][random.below(4)];
                    input[at] = input[at].wrapping_add(by);
                }
                _ => {}
            }
        }
        let whole = found(&[&input[..]]);
        let (start, rest) = input.split_at(random.below(input.len() + 1));
        assert_eq!(
            found(&[start, rest]),
            whole,
            "seed {seed}, split at {}: {}",
            start.len(),
            shown(&input)
        );
        let bytes: Vec<_> = input.chunks(1).collect();
        assert_eq!(found(&bytes), whole, "seed {seed}: {}", shown(&input));
        rounds += 1;
    }
    assert!(rounds > 10, "only {rounds} rounds");
}

/// xorshift64*: enough for choosing what to break.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
