//! Behind a web server: nginx in front of wasgi, and of uWSGI, each with one worker, over unix sockets.

use std::io;
use std::time::Duration;

use serde_json::json;

use crate::apps::HELLO;
use crate::client::ask;
use crate::load::{CONNECTIONS, Load};
use crate::options::Options;
use crate::place::Place;
use crate::process::{Launch, REPLY, Running};
use crate::report::progress;
use crate::servers::{Server, Setup, environment, free_port};
use crate::stats::Spread;
use crate::targets::{Outcome, Verdict, verdict};

/// Of uWSGI's requests/s over the same protocol, at least.
const LEAST: f64 = 0.95;

/// How nginx speaks to a server behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A connection for each request: nginx keeps none with `uwsgi_pass`.
    Uwsgi,
    /// Connections are kept.
    Http,
    /// Connections are kept.
    Fastcgi,
}

/// What is measured, the one that the others are compared with first.
const ROWS: [(Server, Way); 4] = [
    (Server::Uwsgi, Way::Uwsgi),
    (Server::WasgiWorker, Way::Uwsgi),
    (Server::WasgiWorker, Way::Http),
    (Server::WasgiWorker, Way::Fastcgi),
];

/// A server behind nginx, by the port that nginx has for it.
struct Behind {
    server: Server,
    way: Way,
    port: u16,
}

/// One stretch of load.
struct Turn {
    load: Load,
    /// Of nginx, in microseconds per request.
    nginx_cpu: f64,
}

/// Measures all in turns: a slow moment of the machine hits all of them alike.
pub fn run(place: &Place, options: &Options) -> Vec<Outcome> {
    let measured = match measure(place, options) {
        Ok(measured) => measured,
        Err(why) => return vec![Outcome::unknown("hello behind nginx", why)],
    };
    ROWS.iter()
        .enumerate()
        .skip(1)
        .map(|(index, (_, way))| outcome(*way, measured.iter().map(|round| [&round[index], &round[0]])))
        .collect()
}

fn measure(place: &Place, options: &Options) -> Result<Vec<Vec<Turn>>, String> {
    let rows = ROWS
        .iter()
        .map(|&(server, way)| free_port().map(|port| Behind { server, way, port }))
        .collect::<Result<Vec<_>, _>>()?;
    let nginx = nginx(place, &rows)?.start_asking(
        |port| ask(port, "/", None, REPLY),
        // There is nothing behind it yet.
        |_| Ok(()),
    )?;
    let servers = rows
        .iter()
        .map(|row| row.start(place))
        .collect::<Result<Vec<_>, _>>()?;
    let turn = |running: &Running, time| {
        let before = nginx.cpu();
        let load = Load::put(place, running, HELLO, CONNECTIONS, time)?;
        let nginx_cpu = (nginx.cpu() - before).as_secs_f64() * 1e6 / load.requests.max(1) as f64;
        match load.failure() {
            Some(failure) => Err(failure),
            None => Ok(Turn { load, nginx_cpu }),
        }
    };
    for running in &servers {
        turn(running, Duration::from_secs(1))?;
    }
    let mut rounds = Vec::new();
    for round in 0..options.rounds as usize {
        progress(&format!("front: round {}", round + 1));
        let mut turns: Vec<_> = (0..servers.len()).map(|_| None).collect();
        for offset in 0..servers.len() {
            // Each round begins with another one.
            let index = (round + offset) % servers.len();
            let turn = turn(&servers[index], options.turn());
            turns[index] = Some(turn.map_err(|why| format!("{}: {why}", rows[index].name()))?);
        }
        rounds.push(turns.into_iter().flatten().collect());
    }
    for (running, row) in servers.iter().zip(&rows) {
        running
            .check(HELLO)
            .map_err(|wrong| format!("{} after the load: {wrong}", row.name()))?;
    }
    Ok(rounds)
}

fn outcome<'a>(way: Way, rounds: impl Iterator<Item = [&'a Turn; 2]> + Clone) -> Outcome {
    let kept = match way {
        Way::Uwsgi => "",
        Way::Http | Way::Fastcgi => ", connections kept",
    };
    let name = way.name();
    let what = match way {
        Way::Uwsgi => format!("hello behind nginx by {name}: wasgi at least {LEAST} x uWSGI"),
        _ => format!("hello behind nginx by {name}{kept}: wasgi beside uWSGI by uwsgi"),
    };
    let spread = |figure: &dyn Fn([&Turn; 2]) -> f64| Spread::of(rounds.clone().map(figure));
    let figures = [
        spread(&|[ours, other]| ours.load.rate / other.load.rate),
        spread(&|[ours, other]| ours.load.cpu / other.load.cpu),
        spread(&|[ours, _]| ours.load.rate),
        spread(&|[_, other]| other.load.rate),
        spread(&|[ours, _]| ours.load.cpu),
        spread(&|[_, other]| other.load.cpu),
        spread(&|[ours, _]| ours.nginx_cpu),
        spread(&|[_, other]| other.nginx_cpu),
    ];
    let [
        Some(ratio),
        Some(cpu_ratio),
        Some(ours),
        Some(other),
        Some(our_cpu),
        Some(other_cpu),
        Some(our_nginx),
        Some(other_nginx),
    ] = figures
    else {
        return Outcome::unknown(what, "no rounds");
    };
    Outcome {
        what,
        found: format!(
            "{:.2} x ({:.2}..{:.2}): {:.0} to {:.0} requests/s; {:.2} x the CPU ({:.2}..{:.2}): {:.0} to {:.0} us each, \
             nginx {:.0} to {:.0}",
            ratio.median,
            ratio.min,
            ratio.max,
            ours.median,
            other.median,
            cpu_ratio.median,
            cpu_ratio.min,
            cpu_ratio.max,
            our_cpu.median,
            other_cpu.median,
            our_nginx.median,
            other_nginx.median
        ),
        verdict: match way {
            Way::Uwsgi => verdict(ratio.median >= LEAST),
            _ => Verdict::Shown,
        },
        figures: json!({
            "ratio": ratio.to_json(), "cpu_ratio": cpu_ratio.to_json(),
            "wasgi": ours.to_json(), "uwsgi": other.to_json(),
            "wasgi_cpu_us": our_cpu.to_json(), "uwsgi_cpu_us": other_cpu.to_json(),
            "nginx_cpu_us": {"wasgi": our_nginx.to_json(), "uwsgi": other_nginx.to_json()},
        }),
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Uwsgi => "uwsgi",
            Self::Http => "http",
            Self::Fastcgi => "fastcgi",
        }
    }
}

impl Behind {
    fn name(&self) -> String {
        format!("{} by {}", self.server.title(), self.way.name())
    }

    fn socket(&self, place: &Place) -> String {
        let name = format!("front-{}-{}.sock", self.server.key(), self.way.name());
        place.out.join(name).to_string_lossy().into_owned()
    }

    fn start(&self, place: &Place) -> Result<Running, String> {
        let socket = self.socket(place);
        let mut launch = match self.server {
            Server::Uwsgi => self
                .server
                .launch_on(place, HELLO, &Setup::ONE, "--socket", &socket)?,
            _ => {
                let key = self.way.name();
                let address = format!("unix:{socket}");
                self.server.launch_on(place, HELLO, &Setup::ONE, key, &address)?
            }
        };
        launch.port = self.port;
        let log = format!("logs/front-{}-{}.log", self.server.key(), self.way.name());
        launch.log = place.out.join(log);
        let running = launch.start_asking(
            |port| match ask(port, "/", None, REPLY)? {
                reply if reply.status == 502 => Err(io::Error::other("nginx finds nobody there")),
                reply => Ok(reply),
            },
            |reply| HELLO.check(reply),
        )?;
        Ok(running)
    }

    /// nginx's side of it.
    fn conf(&self, place: &Place) -> String {
        let (port, socket) = (self.port, self.socket(place));
        let name = format!("behind_{port}");
        let (keep, pass) = match self.way {
            Way::Uwsgi => ("", "uwsgi_pass {name}; include /etc/nginx/uwsgi_params;"),
            Way::Http => (
                "keepalive 16;",
                "proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection \"\";",
            ),
            Way::Fastcgi => (
                "keepalive 16;",
                "fastcgi_pass {name}; fastcgi_keep_conn on; include /etc/nginx/fastcgi_params; \
                 fastcgi_param PATH_INFO $fastcgi_script_name;",
            ),
        };
        let pass = pass.replace("{name}", &name);
        format!(
            "  upstream {name} {{ server unix:{socket}; {keep} }}\n\
             \x20 server {{ listen 127.0.0.1:{port}; location / {{ {pass} }} }}\n"
        )
    }
}

/// nginx as one process of this user, who may then connect to the sockets; its access log off as theirs are.
fn nginx(place: &Place, rows: &[Behind]) -> Result<Launch, String> {
    let servers: String = rows.iter().map(|row| row.conf(place)).collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {out}/front.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n{servers}}}\n",
        out = place.out.display(),
    );
    let conf = place.write("config/front.conf", &text)?;
    Ok(Launch {
        command: vec![
            "/usr/sbin/nginx".into(),
            "-c".into(),
            conf.into(),
            "-e".into(),
            "stderr".into(),
        ],
        folder: place.out.clone(),
        env: environment(place),
        port: rows[0].port,
        log: place.out.join("logs/front.log"),
    })
}
