//! The servers beside each other, app by app, in turns.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::apps::App;
use crate::client::Reply;
use crate::load::{CONNECTIONS, Load};
use crate::options::Options;
use crate::place::Place;
use crate::process::{Memory, Trouble};
use crate::report::progress;
use crate::servers::{Server, Setup};
use crate::stats::Spread;

/// Load before the figures count.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// A server's turn in one round.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Under load.
    pub load: Load,
    /// After it.
    pub memory: Memory,
    /// Exec to first reply, in milliseconds.
    pub cold_start: f64,
}

/// All of a server with one app.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub server: Server,
    /// A turn for each round, in order; fewer if it failed.
    pub turns: Vec<Turn>,
    /// Why there are no figures: not available here, or not right under load.
    pub trouble: Option<Trouble>,
}

/// All servers with one app.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Of the app.
    pub name: &'static str,
    /// Of the app.
    pub about: &'static str,
    /// In the order of the report.
    pub rows: Vec<Row>,
}

/// Runs all apps on all servers.
///
/// # Errors
/// If the load cannot be made; a server's trouble is in its row.
pub fn run(place: &Place, options: &Options) -> Result<Vec<Compared>, String> {
    options
        .apps
        .iter()
        .map(|app| compare(place, options, app))
        .collect()
}

fn compare(place: &Place, options: &Options, app: &App) -> Result<Compared, String> {
    let mut rows = rehearse(place, options, app);
    let count = rows.len();
    for round in 0..options.rounds as usize {
        // Each round begins with another server, spread over all of them.
        let first = round * count / options.rounds as usize;
        for turn in 0..count {
            let row = &mut rows[(first + turn) % count];
            if row.trouble.is_some() {
                continue;
            }
            progress(&format!(
                "{}: round {} of {}, {}",
                app.name,
                round + 1,
                options.rounds,
                row.server.title()
            ));
            match take_turn(place, options, app, row.server) {
                Ok(turn) => row.turns.push(turn),
                Err(why) => row.trouble = Some(Trouble::Failed(why)),
            }
        }
    }
    progress("");
    Ok(Compared {
        name: app.name,
        about: app.about,
        rows,
    })
}

/// Starts each server once, unmeasured: caches are filled, bytecode is written, what cannot run is found, and all must
/// give the same bytes, or they do not do the same work.
fn rehearse(place: &Place, options: &Options, app: &App) -> Vec<Row> {
    let mut reference: Option<(Server, Vec<u8>)> = None;
    let mut trouble = |server: Server| {
        progress(&format!("{}: trying {}", app.name, server.title()));
        let tried = || -> Result<Reply, Trouble> {
            let running = server.launch(place, app, &Setup::default())?.start(app)?;
            running.check(app).map_err(Trouble::Failed)
        };
        let reply = match tried() {
            Ok(reply) => reply,
            Err(trouble) => return Some(trouble),
        };
        let (other, body) = reference.get_or_insert_with(|| (server, reply.body.clone()));
        let differs = reply.body != *body;
        differs.then(|| Trouble::Failed(format!("its body differs from that of {}", other.title())))
    };
    let row = |server: &Server| Row {
        server: *server,
        turns: Vec::new(),
        trouble: trouble(*server),
    };
    options.servers.iter().map(row).collect()
}

fn take_turn(place: &Place, options: &Options, app: &App, server: Server) -> Result<Turn, String> {
    let running = server.launch(place, app, &Setup::default())?.start(app)?;
    Load::put(place, &running, app, CONNECTIONS, WARM_UP)?;
    let load = Load::put(place, &running, app, CONNECTIONS, options.turn())?;
    if let Some(failure) = load.failure() {
        return Err(failure);
    }
    // What is still being put back or freed is not what an idle server holds.
    sleep(Duration::from_millis(100));
    let memory = running.memory();
    running
        .check(app)
        .map_err(|wrong| format!("after the load: {wrong}"))?;
    Ok(Turn {
        load,
        memory,
        cold_start: running.cold_start.as_secs_f64() * 1e3,
    })
}

impl Row {
    /// Median and spread of one figure over the rounds; `None` without figures.
    pub fn spread(&self, figure: impl Fn(&Turn) -> f64) -> Option<Spread> {
        match self.trouble {
            Some(_) => None,
            None => Spread::of(self.turns.iter().map(figure)),
        }
    }

    fn to_json(&self) -> Value {
        let spread = |figure: fn(&Turn) -> f64| self.spread(figure).map(Spread::to_json);
        let (unavailable, failed) = match &self.trouble {
            Some(Trouble::Unavailable(why)) => (Some(why), None),
            Some(Trouble::Failed(why)) => (None, Some(why)),
            None => (None, None),
        };
        json!({
            "unavailable": unavailable,
            "failed": failed,
            "requests_per_second": spread(|turn| turn.load.rate),
            "p50_ms": spread(|turn| turn.load.p50),
            "p99_ms": spread(|turn| turn.load.p99),
            "cpu_us_per_request": spread(|turn| turn.load.cpu),
            "private_bytes": spread(|turn| turn.memory.private as f64),
            "pss_bytes": spread(|turn| turn.memory.pss as f64),
            "cold_start_ms": spread(|turn| turn.cold_start),
            "turns": self.turns.iter().map(|turn| turn.load.to_json()).collect::<Vec<_>>(),
        })
    }
}

impl Compared {
    /// The row of a server, if it was asked for.
    pub fn row(&self, server: Server) -> Option<&Row> {
        self.rows.iter().find(|row| row.server == server)
    }

    /// Requests/s of one server over those of another, round by round: what slows a round down slows both.
    pub fn ratio(&self, one: Server, other: Server) -> Option<Spread> {
        let (one, other) = (self.row(one)?, self.row(other)?);
        if one.trouble.is_some() || other.trouble.is_some() {
            return None;
        }
        Spread::of(
            one.turns
                .iter()
                .zip(&other.turns)
                .map(|(one, other)| one.load.rate / other.load.rate),
        )
    }

    /// For the results.
    pub fn to_json(&self) -> Value {
        let rows = self
            .rows
            .iter()
            .map(|row| (row.server.key().to_owned(), row.to_json()));
        let ratios = [Server::WasgiWorker, Server::WasgiRequest].map(|ours| {
            let others = self.rows.iter().filter(|row| row.server != ours);
            let ratios = others.filter_map(|row| {
                Some((
                    row.server.key().to_owned(),
                    self.ratio(ours, row.server)?.to_json(),
                ))
            });
            (ours.key().to_owned(), Value::Object(ratios.collect()))
        });
        json!({
            "about": self.about,
            "servers": rows.collect::<Map<_, _>>(),
            "ratios": ratios.into_iter().collect::<Map<_, _>>(),
        })
    }
}
