//! Tells whether what an app keeps in memory from one request to the next shows in its replies.
//!
//! Replies may differ for other reasons: a clock, a random number, a row in a database. So a reply is compared in words,
//! and words that differ between fresh starts are left out: memory is the same for each of those. What then differs
//! between a worker and a fresh start is memory's doing. The fresh starts come first and last, with the worker between
//! them: a clock that ticked on the way shows in the last ones.

use std::collections::HashSet;
use std::fmt;

use wasgi_engine::Kept;

/// The replies to one path.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// Each from an instance as it is after the app's import.
    pub fresh: Vec<Kept>,
    /// Two runs, each of one instance that went from round to round.
    pub worker: [Vec<Kept>; 2],
}

/// What the comparison comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The first difference that memory makes.
    pub difference: Option<Difference>,
    /// Parts that differ from request to request, whatever is in memory; what is the same in them has been compared.
    pub varying: Vec<String>,
}

/// The same part of two replies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// `status`, `body` or a header's name.
    pub part: String,
    /// Whether it is in the worker's staying the same.
    pub kept: bool,
    /// From 1.
    pub round: usize,
    /// An excerpt; `None` if the part is absent.
    pub worker: Option<String>,
    /// An excerpt; `None` if the part is absent.
    pub fresh: Option<String>,
}

/// Bytes shown before and after the place of a difference.
const BEFORE: usize = 16;
const AFTER: usize = 32;

pub(crate) fn judge(replies: &Replies) -> Verdict {
    let mut verdict = Verdict {
        difference: None,
        varying: Vec::new(),
    };
    for part in parts(replies) {
        let read = |replies: &[Kept]| -> Values { replies.iter().map(|reply| value(reply, &part)).collect() };
        let (fresh, worker) = (
            read(&replies.fresh),
            [&replies.worker[0], &replies.worker[1]].map(|run| read(run)),
        );
        let common = Common::of(&fresh);
        let departures = worker.each_ref().map(|run| departure(&common, run));
        let kept = || kept(&fresh, &worker).map(|(at, fresh_at)| (1, at, fresh_at));
        let place = match departures {
            // Memory is the same in both runs, so what it makes is there in both.
            [Some(first), Some(_)] => Some((false, first)),
            _ => kept().map(|place| (true, place)),
        };
        match place {
            Some((kept, (round, at, fresh_at))) => {
                let show = |value: Option<&Option<Vec<u8>>>, at| Some(excerpt(value?.as_deref()?, at));
                verdict.difference.get_or_insert(Difference {
                    kept,
                    round: round + 1,
                    worker: show(worker[0].get(round), at),
                    fresh: show(fresh.first(), fresh_at),
                    part,
                });
            }
            None if common.varies() || departures != [None, None] => verdict.varying.push(part),
            None => {}
        }
    }
    verdict
}

/// One part of several replies; `None` where it is absent.
type Values = Vec<Option<Vec<u8>>>;

/// The first round, from 0, that leaves what fresh starts have in common, and where in the worker's value and theirs.
fn departure(common: &Common<'_>, run: &Values) -> Option<(usize, usize, usize)> {
    let rounds = run.iter().enumerate();
    rounds
        .filter_map(|(round, value)| {
            common
                .departure(value)
                .map(|(at, fresh_at)| (round, at, fresh_at))
        })
        .next()
}

/// Where each fresh start has a word of its own, and a worker one for all rounds: a secret or a time that was drawn by
/// the first request, and kept. The first round may yet be another.
fn kept(fresh: &Values, worker: &[Values; 2]) -> Option<(usize, usize)> {
    let fresh: Vec<_> = fresh
        .iter()
        .map(|value| value.as_deref().map(words))
        .collect::<Option<_>>()?;
    let runs: Vec<Vec<_>> = worker
        .iter()
        .map(|run| {
            run.iter()
                .skip(1)
                .map(|value| value.as_deref().map(words))
                .collect::<Option<_>>()
        })
        .collect::<Option<_>>()?;
    let first = fresh.first()?;
    if fresh
        .iter()
        .chain(runs.iter().flatten())
        .any(|words| words.len() != first.len())
    {
        return None;
    }
    let is_kept = |index: usize| {
        let own: HashSet<_> = fresh.iter().map(|words| words[index]).collect();
        let same = |run: &Vec<Vec<&[u8]>>| run.windows(2).all(|pair| pair[0][index] == pair[1][index]);
        own.len() == fresh.len() && runs.iter().all(same)
    };
    let index = (0..first.len()).find(|&index| is_kept(index))?;
    let offset = |words: &[&[u8]]| words[..index].iter().map(|word| word.len()).sum();
    Some((offset(runs.first()?.first()?), offset(first)))
}

/// The parts that any of the replies has: the status, headers in the order they come, the body and how it ended.
fn parts(replies: &Replies) -> Vec<String> {
    let mut parts = vec!["status".to_owned()];
    for reply in replies.fresh.iter().chain(replies.worker.iter().flatten()) {
        for (name, _) in reply.head.iter().flat_map(|head| &head.headers) {
            let name = String::from_utf8_lossy(name).into_owned();
            if !parts.iter().any(|part| part.eq_ignore_ascii_case(&name)) {
                parts.push(name);
            }
        }
    }
    parts.extend(["body", "end of the reply"].map(str::to_owned));
    parts
}

fn value(reply: &Kept, part: &str) -> Option<Vec<u8>> {
    match part {
        "status" => reply
            .head
            .as_ref()
            .map(|head| head.status.to_string().into_bytes()),
        "body" if reply.length > reply.body.len() as u64 => {
            // What is not kept is one more word.
            let rest = format!(" ... {} bytes with SHA-256 {}", reply.length, hex(&reply.digest));
            Some([&reply.body[..], rest.as_bytes()].concat())
        }
        "body" => Some(reply.body.clone()),
        "end of the reply" => reply
            .failure
            .as_ref()
            .map(|failure| failure.to_string().into_bytes()),
        name => {
            let fields = reply.head.iter().flat_map(|head| &head.headers);
            let values: Vec<&[u8]> = fields
                .filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
                .map(|(_, value)| &value[..])
                .collect();
            (!values.is_empty()).then(|| values.join(&b", "[..]))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the same part of all fresh replies has in common.
enum Common<'a> {
    /// All lack it.
    Absent,
    /// These words, where each has the same; `None` where they vary.
    Words(Vec<(&'a [u8], bool)>),
    /// Not even the number of words, or not all of them have it.
    Nothing,
}

impl<'a> Common<'a> {
    fn of(values: &'a [Option<Vec<u8>>]) -> Self {
        let there: Vec<_> = values.iter().flatten().map(|value| words(value)).collect();
        match there.split_first() {
            None => Common::Absent,
            Some((first, others))
                if there.len() == values.len() && others.iter().all(|other| other.len() == first.len()) =>
            {
                let steady = |index: usize| others.iter().all(|other| other[index] == first[index]);
                let words = first.iter().enumerate();
                Common::Words(words.map(|(index, word)| (*word, steady(index))).collect())
            }
            Some(_) => Common::Nothing,
        }
    }

    fn varies(&self) -> bool {
        match self {
            Common::Absent => false,
            Common::Words(words) => words.iter().any(|(_, steady)| !steady),
            Common::Nothing => true,
        }
    }

    /// Where a value leaves what is common: its offset in the value, and in the first of the fresh ones.
    fn departure(&self, value: &Option<Vec<u8>>) -> Option<(usize, usize)> {
        match (self, value) {
            (Common::Nothing, _) | (Common::Absent, None) => None,
            (Common::Absent, Some(_)) | (Common::Words(_), None) => Some((0, 0)),
            (Common::Words(common), Some(value)) => {
                let words = words(value);
                let (mut at, mut fresh_at) = (0, 0);
                for (word, (fresh, steady)) in words.iter().zip(common) {
                    if *steady && word != fresh {
                        return Some((at, fresh_at));
                    }
                    at += word.len();
                    fresh_at += fresh.len();
                }
                (words.len() != common.len()).then_some((at, fresh_at))
            }
        }
    }
}

/// A value in pieces that stay whole when they are random: runs of what numbers, dates, tokens and encoded data are made
/// of, and each other byte by itself.
fn words(value: &[u8]) -> Vec<&[u8]> {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"-_.+/=%".contains(byte);
    value.chunk_by(|a, b| inside(a) && inside(b)).collect()
}

/// What is around `at`, safe to print.
fn excerpt(value: &[u8], at: usize) -> String {
    let (from, to) = (at.saturating_sub(BEFORE), (at + AFTER).min(value.len()));
    let mut text = String::new();
    for c in String::from_utf8_lossy(&value[from..to]).chars() {
        match c {
            '"' | '\'' | '\\' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
    let dots = |cut: bool| if cut { "..." } else { "" };
    format!("{}{text}{}", dots(from > 0), dots(to < value.len()))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |value: &Option<String>| match value {
            Some(value) => format!("`{value}`"),
            None => "nothing".to_owned(),
        };
        let (worker, fresh) = (quoted(&self.worker), quoted(&self.fresh));
        let Difference { part, round, .. } = self;
        if self.kept {
            return write!(
                f,
                "{part}: a worker keeps {worker}, each fresh start has its own: {fresh}"
            );
        }
        write!(
            f,
            "{part}: {worker} in round {round} of a worker, {fresh} after a fresh start"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasgi_engine::ReplyHead;

    fn reply(status: u16, fields: &[(&str, &str)], body: &str) -> Kept {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let headers = fields
            .iter()
            .map(|(name, value)| (bytes(name).into(), bytes(value).into()));
        Kept {
            head: Some(ReplyHead {
                status,
                reason: Default::default(),
                headers: headers.collect(),
            }),
            body: body.into(),
            length: body.len() as u64,
            ..Kept::default()
        }
    }

    /// The verdict on three rounds and runs of two; `make` gets the run's name, and the request's number in all.
    fn verdict(make: impl Fn(&str, usize, usize) -> Kept) -> Verdict {
        let mut number = 0;
        let mut run = |name: &str| -> Vec<Kept> {
            (1..=3)
                .map(|round| {
                    number += 1;
                    make(name, round, number)
                })
                .collect()
        };
        let mut fresh = run("fresh");
        let worker = [run("worker"), run("worker")];
        fresh.extend(run("fresh"));
        judge(&Replies { fresh, worker })
    }

    /// How many requests the instance has handled before, and itself.
    fn visits(name: &str, round: usize) -> usize {
        if name == "worker" { round } else { 1 }
    }

    #[test]
    fn what_is_always_the_same_is_the_same() {
        let verdict = verdict(|_, _, _| reply(200, &[("A", "b")], "body"));
        assert_eq!((verdict.difference, verdict.varying.len()), (None, 0));
    }

    #[test]
    fn what_a_request_leaves_for_the_next_is_found_with_its_place() {
        let said = |make: &dyn Fn(usize) -> Kept| {
            let verdict = verdict(|name, round, _| make(visits(name, round)));
            verdict.difference.expect("a difference").to_string()
        };
        assert_eq!(
            said(&|visits| reply(200, &[], &format!("You have been here {visits} times.\x1b"))),
            "body: `... have been here 2 times.\\u{1b}` in round 2 of a worker, `... have been here 1 times.\\u{1b}` after \
             a fresh start"
        );
        assert_eq!(
            said(&|visits| reply(if visits > 2 { 500 } else { 200 }, &[], "x")),
            "status: `500` in round 3 of a worker, `200` after a fresh start"
        );
        assert_eq!(
            said(&|visits| reply(200, &[("ETag", "a")][..usize::from(visits == 1)], "x")),
            "ETag: nothing in round 2 of a worker, `a` after a fresh start"
        );
        assert_eq!(
            said(&|visits| reply(
                200,
                &[("Set-Cookie", "a"), ("set-cookie", "b")][..visits.min(2)],
                "x"
            )),
            "Set-Cookie: `a, b` in round 2 of a worker, `a` after a fresh start"
        );
        assert_eq!(
            said(&|visits| reply(200, &[], &"word ".repeat(visits))),
            "body: `word word ` in round 2 of a worker, `word ` after a fresh start"
        );
        assert_eq!(
            said(&|visits| Kept {
                digest: [visits as u8; 32],
                length: 1 << 30,
                ..reply(200, &[], "x")
            })
            .split("SHA")
            .count(),
            3
        );
    }

    #[test]
    fn clocks_counters_elsewhere_and_chance_are_not_memory() {
        for make in [
            // A counter in a file, a clock that ticks once, and one that ticks at the worker's start.
            &(|number: usize| number) as &dyn Fn(usize) -> usize,
            &|number| usize::from(number > 5),
            &|number| usize::from(number > 3),
            &|number| usize::from(number > 9),
        ] {
            let verdict = verdict(|_, _, number| {
                let value = make(number).to_string();
                reply(200, &[("Date", &value)], &format!("it is {value}."))
            });
            assert_eq!(verdict.difference, None);
            assert_eq!(verdict.varying, ["Date", "body"]);
        }
        // Chance that shows in one run of a worker.
        let verdict = verdict(|_, _, number| reply(if number == 5 { 503 } else { 200 }, &[], "x"));
        assert_eq!(
            (verdict.difference, &verdict.varying[..]),
            (None, &["status".to_owned()][..])
        );
    }

    #[test]
    fn memory_is_found_beside_what_varies() {
        let verdict = verdict(|name, round, number| {
            let (token, visits) = (number * 7919, visits(name, round));
            reply(
                200,
                &[],
                &format!("<input value=\"{token}-_x/=\"> visit {visits}"),
            )
        });
        let difference = verdict.difference.expect("a difference");
        assert_eq!(difference.fresh.as_deref(), Some("...19-_x/=\"> visit 1"));
        assert_eq!(difference.round, 2);
    }

    #[test]
    fn what_a_worker_keeps_and_fresh_starts_make_anew_is_memory() {
        let made = |number: usize| number * 7919;
        // The worker's runs are requests 4 to 6 and 7 to 9.
        let keeps = |name: &str, number: usize| match name {
            "worker" => made((number - 1) / 3 * 3),
            _ => made(number),
        };
        let body =
            |secret: usize, number: usize| reply(200, &[], &format!("{secret}, drawn at {}", number * 31));
        let verdict = verdict(|name, _, number| body(keeps(name, number), number));
        assert_eq!(
            verdict.difference.expect("a difference").to_string(),
            "body: a worker keeps `23757, drawn at 155`, each fresh start has its own: `7919, drawn at 31`"
        );
    }

    #[test]
    fn what_cannot_be_compared_is_said_to_vary() {
        let verdict =
            verdict(|name, round, number| reply(200, &[], &"word ".repeat(number * visits(name, round))));
        assert_eq!(verdict.difference, None);
        assert_eq!(verdict.varying, ["body"]);
    }
}
