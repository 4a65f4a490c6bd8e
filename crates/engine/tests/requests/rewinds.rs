//! Random requests that leave something wherever an app can, and an instance that is like new after each.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wasgi_engine::{AppSpec, Instance, RewindError};

use crate::site::*;

/// An app that does what its path says: `/lru:12/raise:0`; `/canary` tells of every place that the others leave
/// something in.
const APP: &str = include_str!("rewinds.py");

/// Requests in a run, unless `WASGI_ROUNDS` says otherwise.
const ROUNDS: usize = 80;

/// Deeds that are over with their request, but for the memory they took.
const LEAVE_NOTHING: [&str; 2] = ["threads", "nested"];

#[tokio::test]
async fn whatever_requests_do_the_next_finds_a_pristine_app() {
    let seed = number("WASGI_SEED").unwrap_or_else(rand::random);
    let rounds = number("WASGI_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let mut random = StdRng::seed_from_u64(seed);
    let site = site(APP, change);
    let mut instance = site.app.start().await.expect("starts");
    let names = ask(&mut instance, "/names").await;
    let names: Vec<_> = names.split(' ').collect();
    let mut instance = site.app.start().await.expect("starts");
    let pristine = ask(&mut instance, "/canary").await;
    rewind(&mut instance).await.expect("rewinds");

    // One loop is enough: each takes as long as the limit.
    let (endless, mut rewound) = (random.random_range(0..rounds), 0);
    for round in 0..rounds {
        let path: String = if round == endless {
            "/loop:0".to_owned()
        } else {
            let deeds = 1 + random.random_range(0..4);
            (0..deeds)
                .map(|_| {
                    let name = names[random.random_range(0..names.len())];
                    format!("/{name}:{}", random.random_range(0..1000))
                })
                .collect()
        };
        let at = format!("WASGI_SEED={seed} WASGI_ROUNDS={rounds}: round {round}, {path}");
        let back = match handle(&mut instance, &path).await {
            false => false,
            true => match rewind(&mut instance).await {
                Ok(()) => true,
                Err(RewindError::Grown(_)) => false,
                Err(error) => panic!("{at}: {error}\n{}", site.log.text()),
            },
        };
        if !back {
            instance = site.app.start().await.expect("starts");
        }
        rewound += usize::from(back);
        let found = ask(&mut instance, "/canary").await;
        for (found, pristine) in found.lines().zip(pristine.lines()) {
            assert_eq!(found, pristine, "{at}");
        }
        assert_eq!(found, pristine, "{at}");
        rewind(&mut instance)
            .await
            .unwrap_or_else(|error| panic!("{at}, after its canary: {error}"));
    }
    assert!(
        rewound * 2 > rounds,
        "only {rewound} of {rounds} were rewound at all"
    );
}

/// Without a rewind: what the canary does not see would prove nothing.
#[tokio::test]
async fn the_canary_sees_each_deed_that_leaves_something() {
    let site = site(APP, change);
    let mut instance = site.app.start().await.expect("starts");
    let names = ask(&mut instance, "/names").await;
    let mut instance = site.app.start().await.expect("starts");
    let pristine = places(&ask(&mut instance, "/canary").await);
    let mut unseen = Vec::new();
    for name in names.split(' ') {
        let mut instance = site.app.start().await.expect("starts");
        handle(&mut instance, &format!("/{name}:7")).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        instance.handle(get("/canary", &seen)).await;
        let seen = seen.lock().expect("seen");
        // A deed that leaves an app unable to answer is seen, too.
        if seen.finished && places(&text(&seen)) == pristine {
            unseen.push(name);
        }
    }
    assert_eq!(unseen, LEAVE_NOTHING);
}

/// What the canary tells of places by their names, and not of the allocator, which is changed by anything at all.
fn places(canary: &str) -> Vec<String> {
    let lines = canary.lines().map(str::to_owned);
    lines
        .filter(|line| !line.starts_with("allocator ") && !line.starts_with("address "))
        .collect()
}

fn change(spec: &mut AppSpec) {
    spec.env = vec![("GIVEN".to_owned(), "by the host".to_owned())];
    spec.limits.time = Duration::from_secs(2);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

async fn rewind(instance: &mut Instance) -> Result<(), RewindError> {
    instance.rewind(true).await.map(drop)
}

/// Whether the instance may go on after this request, whatever the reply.
async fn handle(instance: &mut Instance, path: &str) -> bool {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let report = instance.handle(get(path, &seen)).await;
    report.reusable
}
