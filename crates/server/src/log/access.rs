//! The access log: one line per request, when its reply has gone out or its peer has.

use std::fmt::Write;
use std::time::Duration;

use wasgi_config::AccessFormat;
use wasgi_protocol::Head;

use super::date::DateCache;
use super::escape::{json, quoted};
use crate::bill::Cost;
use crate::request_id::RequestId;
use crate::trace::TraceId;

/// What is told of one request.
pub(crate) struct Access<'a> {
    /// The peer's address, empty on a unix socket.
    pub(crate) remote: &'a str,
    /// `None` if the head was refused.
    pub(crate) head: Option<&'a Head>,
    /// The app it was for; `None` if it was for none.
    pub(crate) app: Option<&'a str>,
    /// 499 when the peer went away before there was a status, as nginx has it.
    pub(crate) status: u16,
    /// Bytes of the reply's body.
    pub(crate) bytes: u64,
    /// From the complete head to the end of the reply.
    pub(crate) time: Duration,
    pub(crate) worker: Option<u32>,
    /// If it is to be told.
    pub(crate) cost: Option<&'a Cost>,
    pub(crate) id: RequestId,
    pub(crate) trace: Option<TraceId>,
}

impl Access<'_> {
    pub(super) fn write(&self, format: &AccessFormat, dates: &mut DateCache, line: &mut String) {
        match format {
            AccessFormat::Off => {}
            AccessFormat::Combined | AccessFormat::CombinedBill => self.combined(dates, line),
            AccessFormat::Json | AccessFormat::JsonBill => self.json(dates, line),
            AccessFormat::Custom(format) => self.custom(format, line),
        }
    }

    fn combined(&self, dates: &mut DateCache, line: &mut String) {
        let remote = if self.remote.is_empty() { "-" } else { self.remote };
        let _ = write!(line, "{remote} - - [{}] \"", dates.common());
        match self.head {
            Some(head) => {
                quoted(line, head.method());
                line.push(' ');
                quoted(line, head.target());
                line.push(' ');
                quoted(line, head.protocol());
            }
            None => line.push('-'),
        }
        let _ = write!(line, "\" {} {} \"", self.status, self.bytes);
        quoted(line, self.field("referer").unwrap_or(b"-"));
        line.push_str("\" \"");
        quoted(line, self.field("user-agent").unwrap_or(b"-"));
        let _ = write!(line, "\" {}ms app=", Milliseconds(self.time));
        quoted(line, self.app.unwrap_or("-").as_bytes());
        line.push_str(" worker=");
        let _ = match self.worker {
            Some(worker) => write!(line, "{worker}"),
            None => write!(line, "-"),
        };
        if let Some(cost) = self.cost {
            let _ = match cost.ran {
                Some((cpu, memory)) => {
                    write!(line, " cpu={}ms memory={}KiB", Milliseconds(cpu), memory >> 10)
                }
                None => write!(line, " cpu=- memory=-"),
            };
            let _ = match cost.rewound.and_then(|rewound| rewound.pages) {
                Some(pages) => write!(line, " pages={pages}"),
                None => write!(line, " pages=-"),
            };
            let _ = match cost.rewound {
                Some(rewound) => write!(line, " rewind={}ms", Milliseconds(rewound.time)),
                None => write!(line, " rewind=-"),
            };
        }
        if let Some(trace) = self.trace {
            let _ = write!(line, " trace={trace}");
        }
        let _ = write!(line, " id={}", self.id);
    }

    fn json(&self, dates: &mut DateCache, line: &mut String) {
        let _ = write!(line, "{{\"time\":\"{}\",\"remote\":", dates.rfc3339());
        json(line, self.remote.as_bytes());
        if let Some(head) = self.head {
            line.push_str(",\"method\":");
            json(line, head.method());
            line.push_str(",\"target\":");
            json(line, head.target());
            line.push_str(",\"protocol\":");
            json(line, head.protocol());
        }
        let _ = write!(line, ",\"status\":{},\"bytes\":{}", self.status, self.bytes);
        for (key, name) in [("referer", "referer"), ("user_agent", "user-agent")] {
            if let Some(value) = self.field(name) {
                let _ = write!(line, ",\"{key}\":");
                json(line, value);
            }
        }
        let _ = write!(line, ",\"ms\":{}", Milliseconds(self.time));
        if let Some(app) = self.app {
            line.push_str(",\"app\":");
            json(line, app.as_bytes());
        }
        if let Some(worker) = self.worker {
            let _ = write!(line, ",\"worker\":{worker}");
        }
        if let Some((cpu, memory)) = self.cost.and_then(|cost| cost.ran) {
            let _ = write!(line, ",\"cpu_ms\":{},\"memory\":{memory}", Milliseconds(cpu));
        }
        if let Some(rewound) = self.cost.and_then(|cost| cost.rewound) {
            if let Some(pages) = rewound.pages {
                let _ = write!(line, ",\"pages\":{pages}");
            }
            let _ = write!(line, ",\"rewind_ms\":{}", Milliseconds(rewound.time));
        }
        if let Some(trace) = self.trace {
            let _ = write!(line, ",\"trace\":\"{trace}\"");
        }
        let _ = write!(line, ",\"id\":\"{}\"}}", self.id);
    }

    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.head?.field(name)
    }
}

/// `12.345`, without the cost of formatting a float.
struct Milliseconds(Duration);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasgi_protocol::http::{Guard, Limits, Step};

    fn line(head: &str, format: AccessFormat) -> String {
        billed(head, format, None)
    }

    fn billed(head: &str, format: AccessFormat, cost: Option<&Cost>) -> String {
        let Step::Head { head, .. } = Guard::new(Limits { head: 1000 }).step(head.as_bytes()) else {
            panic!()
        };
        let head = Head::from(head);
        let access = Access {
            remote: "192.0.2.1",
            app: Some("shop"),
            head: Some(&head),
            status: 200,
            bytes: 12,
            time: Duration::from_micros(1_042),
            worker: Some(3),
            cost,
            id: RequestId::random(),
            trace: None,
        };
        let (mut line, mut dates) = (String::new(), DateCache::default());
        access.write(&format, &mut dates, &mut line);
        let (date, id) = (dates.common().to_owned(), access.id.to_string());
        line.replace(&date, "DATE")
            .replace(dates.rfc3339(), "DATE")
            .replace(&id, "ID")
    }

    #[test]
    fn a_combined_line_has_time_worker_and_id() {
        let head = "GET /a?b HTTP/1.1\r\nHost: a\r\nReferer: http://b/\r\nUser-Agent: curl/8.5\r\n\r\n";
        assert_eq!(
            line(head, AccessFormat::Combined),
            "192.0.2.1 - - [DATE] \"GET /a?b HTTP/1.1\" 200 12 \"http://b/\" \"curl/8.5\" 1.042ms app=shop worker=3 id=ID"
        );
    }

    #[test]
    fn a_bill_tells_what_is_known() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let ran = Some((Duration::from_micros(812), 42_880 << 10));
        let rewound = |pages| {
            let time = Duration::from_micros(160);
            Some(wasgi_engine::Rewound { pages, time })
        };
        for (ran, rewound, combined, json) in [
            (None, None, " cpu=- memory=- pages=- rewind=-", ""),
            (
                ran,
                None,
                " cpu=0.812ms memory=42880KiB pages=- rewind=-",
                ",\"cpu_ms\":0.812,\"memory\":43909120",
            ),
            (
                ran,
                rewound(None),
                " cpu=0.812ms memory=42880KiB pages=- rewind=0.160ms",
                ",\"cpu_ms\":0.812,\"memory\":43909120,\"rewind_ms\":0.160",
            ),
            (
                ran,
                rewound(Some(98)),
                " cpu=0.812ms memory=42880KiB pages=98 rewind=0.160ms",
                ",\"cpu_ms\":0.812,\"memory\":43909120,\"pages\":98,\"rewind_ms\":0.160",
            ),
        ] {
            let cost = Cost {
                ran,
                rewound,
                ..Cost::default()
            };
            let line = |format| billed(head, format, Some(&cost));
            let expected = format!("1.042ms app=shop worker=3{combined} id=ID");
            assert!(line(AccessFormat::CombinedBill).ends_with(&expected));
            let expected = format!("\"ms\":1.042,\"app\":\"shop\",\"worker\":3{json},\"id\":\"ID\"}}");
            assert!(line(AccessFormat::JsonBill).ends_with(&expected));
        }
    }

    #[test]
    fn every_name_is_a_format() {
        for name in AccessFormat::NAMES {
            let format: AccessFormat = name.parse().unwrap();
            assert_eq!(format.has_bill(), name.ends_with("+bill"));
        }
        assert!("bill".parse::<AccessFormat>().unwrap_err().contains("json+bill"));
    }

    #[test]
    fn peers_cannot_leave_their_quotes() {
        let head = "GET /\"\u{e9}\\ HTTP/1.1\r\nHost: a\r\nUser-Agent: x\" 200 \"\ty\r\n\r\n";
        assert_eq!(
            line(head, AccessFormat::Combined),
            "192.0.2.1 - - [DATE] \"GET /\\\"\\xc3\\xa9\\\\ HTTP/1.1\" 200 12 \"-\" \"x\\\" 200 \\\"\\x09y\" 1.042ms app=shop worker=3 id=ID"
        );
        assert_eq!(
            line(head, AccessFormat::Json),
            "{\"time\":\"DATE\",\"remote\":\"192.0.2.1\",\"method\":\"GET\",\"target\":\"/\\\"\\u00c3\\u00a9\\\\\",\
             \"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":12,\"user_agent\":\"x\\\" 200 \\\"\\u0009y\",\
             \"ms\":1.042,\"app\":\"shop\",\"worker\":3,\"id\":\"ID\"}"
        );
    }
}
