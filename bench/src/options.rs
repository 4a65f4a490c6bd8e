//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apps::{APPS, App};
use crate::servers::{ALL, Server};

pub const HELP: &str = "\
wasgi-bench [compare|targets|static|front|all|density] [option...]

  compare     requests/s, latency, memory and cold start of wasgi and its peers, app by app
  targets     start, idle memory, a thousand sleepers, a neighbour that burns CPU
  static      files that wasgi sends itself, beside nginx
  front       wasgi and uWSGI behind nginx, over unix sockets
  all         all of these (default)
  density     a server with many apps: images, start, idle memory, first requests

  --seconds N      time under load for each server and app, over all rounds (default 6)
  --rounds N       how often the servers take turns (default 3)
  --apps a,b       only these apps
  --servers a,b    only these servers
  --tenants N      apps of density (default 1000)
  --own-packages   each of them has a copy of its packages instead of one for all
  --root DIR       the project (default: the current folder)
  --wasgi FILE     the wasgi to measure (default: target/release/wasgi)
";

/// Which part of the benchmark runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The servers beside each other.
    Compare,
    /// What is measured of wasgi beyond that.
    Targets,
    /// Files, beside nginx.
    Static,
    /// Behind nginx.
    Front,
    /// All of these.
    All,
    /// Many apps on one server.
    Density,
}

/// The command line, read.
#[derive(Debug)]
pub struct Options {
    /// What runs.
    pub part: Part,
    /// Time under load per server and app, over all rounds.
    pub time: Duration,
    /// How often the servers take turns.
    pub rounds: u32,
    /// In the order of the report.
    pub apps: Vec<&'static App>,
    /// In the order of the report.
    pub servers: Vec<Server>,
    /// Apps of the server that has many.
    pub tenants: usize,
    /// Whether each of those has its packages for itself.
    pub own_packages: bool,
    /// The project's folder.
    pub root: PathBuf,
    /// The program to measure, if not the usual one.
    pub wasgi: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments; `None` if they ask for help. An empty list means all.
    ///
    /// # Errors
    /// What was not understood, in words.
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            part: Part::All,
            time: Duration::from_secs(6),
            rounds: 3,
            apps: APPS.iter().collect(),
            servers: ALL.to_vec(),
            tenants: 1000,
            own_packages: false,
            root: PathBuf::from("."),
            wasgi: None,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "compare" => options.part = Part::Compare,
                "targets" => options.part = Part::Targets,
                "static" => options.part = Part::Static,
                "front" => options.part = Part::Front,
                "all" => options.part = Part::All,
                "density" => options.part = Part::Density,
                "--tenants" => {
                    let value = value()?;
                    let tenants = value
                        .parse()
                        .ok()
                        .filter(|tenants| (2..=20_000).contains(tenants));
                    options.tenants =
                        tenants.ok_or_else(|| format!("--tenants {value}: not within 2 and 20000"))?;
                }
                "--own-packages" => options.own_packages = true,
                "--seconds" => {
                    let value = value()?;
                    let seconds = value
                        .parse()
                        .ok()
                        .filter(|seconds| (0.5..=60.0).contains(seconds));
                    let seconds =
                        seconds.ok_or_else(|| format!("--seconds {value}: not within 0.5 and 60"))?;
                    options.time = Duration::from_secs_f64(seconds);
                }
                "--rounds" => {
                    let value = value()?;
                    let rounds = value.parse().ok().filter(|rounds| (1..=20).contains(rounds));
                    options.rounds =
                        rounds.ok_or_else(|| format!("--rounds {value}: not within 1 and 20"))?;
                }
                "--apps" => options.apps = chosen(&value()?, options.apps, |app| app.name)?,
                "--servers" => options.servers = chosen(&value()?, options.servers, |server| server.key())?,
                "--root" => options.root = value()?.into(),
                "--wasgi" => options.wasgi = Some(value()?.into()),
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("{other}: unknown; --help lists what there is")),
            }
        }
        Ok(Some(options))
    }

    /// Time under load in each round: whole seconds, since wrk knows no others.
    pub fn turn(&self) -> Duration {
        Duration::from_secs(
            (self.time.as_secs_f64() / f64::from(self.rounds))
                .round()
                .max(1.0) as u64,
        )
    }

    /// For the results.
    pub fn to_json(&self) -> Value {
        json!({
            "rounds": self.rounds,
            "seconds_per_round": self.turn().as_secs(),
            "connections": crate::load::CONNECTIONS,
            "warm_up_seconds": crate::compare::WARM_UP.as_secs_f64(),
        })
    }
}

fn chosen<T>(list: &str, all: Vec<T>, name: impl Fn(&T) -> &str) -> Result<Vec<T>, String> {
    let wanted: Vec<_> = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if let Some(unknown) = wanted
        .iter()
        .find(|wanted| !all.iter().any(|one| name(one) == **wanted))
    {
        let known: Vec<_> = all.iter().map(&name).collect();
        return Err(format!("{unknown}: unknown; there are {}", known.join(", ")));
    }
    Ok(all
        .into_iter()
        .filter(|one| wanted.is_empty() || wanted.contains(&name(one)))
        .collect())
}
