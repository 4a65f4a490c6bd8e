//! Which trace a request is part of: W3C Trace Context, "traceparent Header".

mod otlp;

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wasgi_config::Tracing;
use wasgi_protocol::Head;

pub(crate) use otlp::Exporter;

use crate::bill::Cost;

/// Decides what is traced, and has it sent.
pub(crate) struct Tracer {
    sample: f64,
    exporter: Exporter,
}

impl Tracer {
    /// Sends spans to a collector; `tell` gets what the log should have about it.
    ///
    /// # Errors
    /// When the thread that sends cannot be started.
    pub(crate) fn start(
        tracing: &Tracing,
        tell: Box<dyn Fn(fmt::Arguments<'_>) + Send>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            sample: tracing.sample,
            exporter: Exporter::start(tracing, tell)?,
        })
    }

    /// A request's place in the peer's trace, or in one of its own. A trusted peer's word on whether it is sampled
    /// counts: a trace is of use when it is whole. No other's does: it could have all its requests traced.
    pub(crate) fn context(&self, head: &Head, is_trusted: bool) -> Context {
        let given = Context::of(head);
        let sampled = match given {
            Some(given) if is_trusted => given.sampled,
            _ => rand::random::<f64>() < self.sample,
        };
        Context {
            trace: given.map_or_else(|| rand::random::<u128>().max(1), |given| given.trace),
            parent: given.and_then(|given| given.parent),
            span: rand::random::<u64>().max(1),
            sampled,
        }
    }

    /// Sends a request's spans, or counts them as dropped. Never waits.
    pub(crate) fn record(&self, request: Traced) {
        self.exporter.take(request);
    }

    /// Waits until all has been sent, but not past `end`.
    pub(crate) fn flush(&self, end: Instant) {
        self.exporter.flush(end);
    }
}

/// A request that is over, as its spans tell it.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) context: Context,
    pub(crate) app: String,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) peer: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    pub(crate) cost: Cost,
}

/// Where a log has its tracer, if it has one.
pub(crate) type MaybeTracer = OnceLock<Tracer>;

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: u128,
    /// The span that the request came from, if it came from one.
    pub(crate) parent: Option<u64>,
    /// The request's own.
    pub(crate) span: u64,
    /// Whether its spans are recorded.
    pub(crate) sampled: bool,
}

impl Context {
    /// What the peer says, if it is valid; with a span that is not looked at.
    pub(crate) fn of(head: &Head) -> Option<Self> {
        let (trace, parent, sampled) = parse(head.only_field("traceparent")?)?;
        Some(Self {
            trace,
            parent: Some(parent),
            span: parent,
            sampled,
        })
    }

    /// The trace's id as it is written.
    pub(crate) fn trace_id(&self) -> TraceId {
        TraceId(self.trace)
    }
}

/// As a `traceparent` for the next: the request's own span is its parent.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Trace, parent and whether it is sampled.
///
/// Of a later version, which may be longer, what this one knows is taken.
fn parse(value: &[u8]) -> Option<(u128, u64, bool)> {
    let (known, rest) = value.split_at_checked(55)?;
    let known = str::from_utf8(known).ok()?;
    let is_plain = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if !known.bytes().all(is_plain) {
        return None;
    }
    let mut parts = known.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length);
    let (version, trace, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_whole = match version {
        "ff" => false,
        "00" => rest.is_empty(),
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let parent = u64::from_str_radix(parent, 16)
        .ok()
        .filter(|parent| *parent != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    is_whole.then_some((trace, parent, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_if_it_is_valid() {
        let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
        let parent = 0xb7ad_6b71_6920_3331;
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        for (text, expected) in [
            (
                format!("00-{TRACE}-b7ad6b7169203331-01"),
                Some((trace, parent, true)),
            ),
            (
                format!("00-{TRACE}-b7ad6b7169203331-00"),
                Some((trace, parent, false)),
            ),
            (
                format!("00-{TRACE}-b7ad6b7169203331-03"),
                Some((trace, parent, true)),
            ),
            (
                format!("01-{TRACE}-b7ad6b7169203331-01-more"),
                Some((trace, parent, true)),
            ),
            (format!("01-{TRACE}-b7ad6b7169203331-01more"), None),
            (format!("00-{TRACE}-b7ad6b7169203331-01-more"), None),
            (format!("ff-{TRACE}-b7ad6b7169203331-01"), None),
            (format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()), None),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-0000000000000000-01"), None),
            (format!("00-{TRACE}-b7ad6b7169203331"), None),
            (format!("00_{TRACE}_b7ad6b7169203331_01"), None),
            (format!("0-0{TRACE}-b7ad6b7169203331-01"), None),
            (format!("00-+{}-b7ad6b7169203331-01", &TRACE[1..]), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        let context = Context {
            trace,
            parent: None,
            span: parent,
            sampled: true,
        };
        assert_eq!(context.to_string(), format!("00-{TRACE}-b7ad6b7169203331-01"));
    }
}
