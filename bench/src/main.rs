//! Measures wasgi beside native WSGI servers, in one run on one machine. `bench/README.md` says what and how.

mod apps;
mod client;
mod compare;
mod front;
mod load;
mod machine;
mod options;
mod place;
mod plot;
mod process;
mod report;
mod servers;
mod static_files;
mod stats;
mod targets;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::options::{Options, Part};
use crate::place::Place;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    let place = Place::find(&options)?;
    process::raise_file_limit();
    let machine = machine::describe(&place);
    report::machine(&machine);

    let mut compared = Vec::new();
    let mut targets = Vec::new();
    if options.part == Part::Density {
        targets.extend(targets::density(&place, &options));
    }
    if matches!(options.part, Part::Compare | Part::All) {
        compared = compare::run(&place, &options)?;
        report::compared(&compared);
        targets.extend(targets::of_comparison(&compared));
    }
    if matches!(options.part, Part::Targets | Part::All) {
        targets.extend(targets::run(&place, &options));
    }
    if matches!(options.part, Part::Static | Part::All) {
        targets.extend(static_files::run(&place, &options));
        report::progress("");
    }
    if matches!(options.part, Part::Front | Part::All) {
        targets.extend(front::run(&place, &options));
        report::progress("");
    }
    report::targets(&targets);

    let results = json!({
        "machine": machine,
        "settings": options.to_json(),
        "apps": compared.iter().map(|app| (app.name.to_owned(), app.to_json())).collect::<serde_json::Map<_, _>>(),
        "targets": targets.iter().map(targets::Outcome::to_json).collect::<Vec<Value>>(),
    });
    let text = serde_json::to_string_pretty(&results).expect("a tree of plain values") + "\n";
    place.write("results.json", &text)?;
    println!("\n{}", place.out.join("results.json").display());
    if !compared.is_empty() {
        place.write("plot.svg", &plot::svg(&compared, &machine))?;
        println!("{}", place.out.join("plot.svg").display());
    }
    Ok(())
}
