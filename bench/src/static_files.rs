//! Files that wasgi sends itself, beside nginx: one thread of each looks after the connections.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::apps::HELLO;
use crate::load::{CONNECTIONS, Load};
use crate::options::Options;
use crate::place::Place;
use crate::process::{Launch, Running};
use crate::report::progress;
use crate::servers::{Server, Setup, environment, free_port};
use crate::stats::Spread;
use crate::targets::{Outcome, verdict};

/// Name, size in bytes, and how much of nginx's rate is aimed at; nothing for the large one.
const FILES: [(&str, usize, Option<f64>); 3] = [
    ("1 KiB", 1 << 10, Some(0.7)),
    ("16 KiB", 16 << 10, Some(0.7)),
    ("8 MiB", 8 << 20, None),
];

/// What `/` answers, so that nginx is seen to be up as any other server is.
const INDEX: &str = "<h1>Hello There!</h1>\n";

/// Measures both in turns.
pub fn run(place: &Place, options: &Options) -> Vec<Outcome> {
    let both = (|| {
        let folder = files(place)?;
        let setup = Setup {
            // Relative to the app.toml that is written below target/bench/config.
            app: "[static]\n\"/static\" = \"../../static\"\n",
            ..Setup::default()
        };
        let wasgi = Server::WasgiWorker.launch(place, HELLO, &setup)?.start(HELLO)?;
        let nginx = nginx(place, &folder)?.start(HELLO)?;
        Ok::<_, String>((wasgi, nginx))
    })();
    let what = |name: &str, least: Option<f64>| match least {
        Some(least) => format!("a file of {name}: wasgi at least {least} x nginx"),
        None => format!("a file of {name}: wasgi beside nginx"),
    };
    let outcomes = FILES.iter().map(|(name, size, least)| match &both {
        Err(why) => Outcome::unknown(what(name, *least), why.as_str()),
        Ok((wasgi, nginx)) => {
            progress(&format!("static: {name}"));
            let path = format!("static/{size}.bin");
            match rates(place, options, wasgi, nginx, &path) {
                Err(why) => Outcome::unknown(what(name, *least), why),
                Ok(rates) => outcome(what(name, *least), *least, &rates),
            }
        }
    });
    outcomes.collect()
}

fn outcome(what: String, least: Option<f64>, rates: &[[Load; 2]]) -> Outcome {
    let spread = |figure: &dyn Fn(&[Load; 2]) -> f64| Spread::of(rates.iter().map(figure));
    let (Some(ratio), Some(ours), Some(other)) = (
        spread(&|[ours, other]| ours.rate / other.rate),
        spread(&|[ours, _]| ours.rate),
        spread(&|[_, other]| other.rate),
    ) else {
        return Outcome::unknown(what, "no rounds");
    };
    let cpu = |index: usize| spread(&|pair| pair[index].cpu).map_or(0.0, |spread| spread.median);
    Outcome {
        what,
        found: format!(
            "{:.2} x ({:.2}..{:.2}): {:.0} to {:.0} requests/s, {:.0} to {:.0} us of CPU each",
            ratio.median,
            ratio.min,
            ratio.max,
            ours.median,
            other.median,
            cpu(0),
            cpu(1)
        ),
        verdict: match least {
            Some(least) => verdict(ratio.median >= least),
            None => crate::targets::Verdict::Shown,
        },
        figures: json!({"ratio": ratio.to_json(), "wasgi": ours.to_json(), "nginx": other.to_json()}),
    }
}

/// A pair of figures, wasgi's first, for each round.
fn rates(
    place: &Place,
    options: &Options,
    wasgi: &Running,
    nginx: &Running,
    path: &str,
) -> Result<Vec<[Load; 2]>, String> {
    let put = |running: &Running, time| {
        let load = Load::put_on(place, running, path, None, CONNECTIONS, time)?;
        load.failure().map_or(Ok(load), Err)
    };
    for running in [wasgi, nginx] {
        put(running, Duration::from_secs(1))?;
    }
    (0..options.rounds)
        .map(|_| Ok([put(wasgi, options.turn())?, put(nginx, options.turn())?]))
        .collect()
}

/// Makes the files.
fn files(place: &Place) -> Result<std::path::PathBuf, String> {
    let folder = place.out.join("static");
    for (_, size, _) in FILES {
        let text = "0123456789abcdef".repeat(size / 16);
        place.write(&format!("static/{size}.bin"), &text)?;
    }
    place.write("static/index.html", INDEX)?;
    fs::canonicalize(&folder).map_err(|error| format!("{}: {error}", folder.display()))
}

/// nginx as it comes, with one worker process, its access log off as wasgi's is.
fn nginx(place: &Place, folder: &Path) -> Result<Launch, String> {
    let port = free_port()?;
    let (out, folder) = (place.out.display(), folder.display());
    let text = format!(
        "worker_processes 1;\ndaemon off;\npid {out}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000000;\n\
         \x20 include /etc/nginx/mime.types;\n\
         \x20 server {{\n    listen 127.0.0.1:{port};\n    root {folder};\n\
         \x20   location /static/ {{ alias {folder}/; }}\n  }}\n}}\n"
    );
    let conf = place.write("config/nginx.conf", &text)?;
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
        port,
        log: place.out.join("logs/nginx.log"),
    })
}
