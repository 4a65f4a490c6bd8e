//! `/metrics`: the figures in Prometheus's text format, version 0.0.4.

use std::fmt::Write;
use std::time::Duration;

use crate::histogram::{Durations, ENDS};
use crate::metrics::Dropped;
use crate::site::Glance;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const STATUSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All apps, one family of figures after the other.
pub(super) fn metrics(glances: &[Glance]) -> String {
    let mut page = Page {
        text: String::new(),
        glances,
    };
    page.value("wasgi_app_up", "gauge", "Whether the app takes requests.", |it| {
        u8::from(it.down.is_none()).into()
    });
    page.value(
        "wasgi_app_generation",
        "gauge",
        "Which load of the app answers, from 1.",
        |it| it.generation as f64,
    );
    page.values(
        "wasgi_requests_total",
        "Requests by class of their status; 499, a client that went away, is in 4xx.",
        "status",
        |it| STATUSES.into_iter().zip(it.served.statuses).collect(),
    );
    page.durations(
        "wasgi_request_duration_seconds",
        "From a request's head to the end of its reply.",
        |it| &it.served.times,
    );
    page.durations(
        "wasgi_queue_duration_seconds",
        "Wait of requests for a worker.",
        |it| &it.served.waits,
    );
    page.value(
        "wasgi_requests_in_flight",
        "gauge",
        "Requests that workers handle.",
        |it| it.running as f64,
    );
    page.value(
        "wasgi_queue_length",
        "gauge",
        "Requests that wait for a worker.",
        |it| it.waiting as f64,
    );
    page.value("wasgi_instances", "gauge", "Instances of the app.", |it| {
        it.held.instances as f64
    });
    page.values(
        "wasgi_instance_starts_total",
        "Instances started: cold by importing the app, restored from its snapshot.",
        "from",
        |it| {
            let (started, restored) = (it.figures.started, it.figures.restored);
            vec![("cold", started - restored), ("restored", restored)]
        },
    );
    page.values(
        "wasgi_instances_dropped_total",
        "Instances dropped, by reason.",
        "reason",
        |it| {
            let dropped = it.figures.dropped.iter();
            dropped
                .map(|(why, count)| (Dropped::label(*why), *count))
                .collect()
        },
    );
    page.value(
        "wasgi_cpu_seconds_total",
        "counter",
        "Time that the app's code ran for requests.",
        |it| it.figures.cpu.as_secs_f64(),
    );
    page.value(
        "wasgi_memory_bytes",
        "gauge",
        "Memory that the app's instances have for themselves.",
        |it| it.held.memory as f64,
    );
    page.value(
        "wasgi_reply_bytes_total",
        "counter",
        "Bytes of replies' bodies sent.",
        |it| it.served.bytes as f64,
    );
    page.text
}

struct Page<'g> {
    text: String,
    glances: &'g [Glance],
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a `String` does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn value(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Glance) -> f64) {
        self.head(name, kind, help);
        for glance in self.glances {
            let (app, value) = (escaped(&glance.name), value(glance));
            self.line(format_args!("{name}{{app=\"{app}\"}} {value}"));
        }
    }

    fn values<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Fn(&Glance) -> Vec<(&'l str, u64)>,
    ) {
        self.head(name, "counter", help);
        for glance in self.glances {
            let app = escaped(&glance.name);
            for (of, value) in values(glance) {
                self.line(format_args!("{name}{{app=\"{app}\",{label}=\"{of}\"}} {value}"));
            }
        }
    }

    fn durations(&mut self, name: &str, help: &str, durations: impl Fn(&Glance) -> &Durations) {
        self.head(name, "histogram", help);
        for glance in self.glances {
            let (app, durations) = (escaped(&glance.name), durations(glance));
            let mut within = 0;
            for (class, end) in ENDS.iter().enumerate() {
                within += durations.counts[class];
                // Half of the classes: three in a decade are what dashboards need.
                if [1, 2, 5].contains(&first_digit(*end)) && end.to_string().trim_end_matches('0').len() == 1
                {
                    let end = Duration::from_micros(*end).as_secs_f64();
                    self.line(format_args!(
                        "{name}_bucket{{app=\"{app}\",le=\"{end}\"}} {within}"
                    ));
                }
            }
            let (count, sum) = (durations.count(), durations.sum.as_secs_f64());
            self.line(format_args!("{name}_bucket{{app=\"{app}\",le=\"+Inf\"}} {count}"));
            self.line(format_args!("{name}_sum{{app=\"{app}\"}} {sum}"));
            self.line(format_args!("{name}_count{{app=\"{app}\"}} {count}"));
        }
    }
}

/// A name as a label's value.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// 1 of 150.
fn first_digit(number: u64) -> u64 {
    number / 10_u64.pow(number.checked_ilog10().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_its_quotes() {
        assert_eq!(escaped("a\"} 1\n\\"), "a\\\"} 1\\n\\\\");
    }

    #[test]
    fn half_of_the_classes_are_told_with_round_ends() {
        let mut page = Page {
            text: String::new(),
            glances: &[],
        };
        let glance = crate::site::tests::glance("shop");
        page.glances = std::slice::from_ref(&glance);
        page.durations("x_seconds", "Help.", |glance| &glance.served.times);
        let ends: Vec<_> = page
            .text
            .lines()
            .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next())
            .collect();
        let expected = [
            "0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2",
            "0.5", "1", "2", "5", "10", "20", "50", "100", "+Inf",
        ];
        assert_eq!(ends, expected);
    }
}
