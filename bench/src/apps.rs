//! The apps, and how a right answer of each looks.

use serde_json::Value;

use crate::client::Reply;

/// Size of an upload, in bytes.
pub const UPLOAD: usize = 1 << 20;

/// One Flask app of `bench/apps`.
#[derive(Debug)]
pub struct App {
    /// Its folder.
    pub name: &'static str,
    /// For the report.
    pub about: &'static str,
    /// Whether requests carry a body of [`UPLOAD`] bytes.
    pub uploads: bool,
    check: fn(&[u8]) -> Result<(), String>,
}

/// What the servers are compared by.
pub const APPS: &[App] = &[
    App {
        name: "hello",
        about: "a string",
        uploads: false,
        check: hello,
    },
    App {
        name: "page",
        about: "a Jinja template, 50 rows",
        uploads: false,
        check: page,
    },
    App {
        name: "json",
        about: "10 KB of JSON",
        uploads: false,
        check: json,
    },
    App {
        name: "upload",
        about: "1 MiB echoed",
        uploads: true,
        check: upload,
    },
    App {
        name: "sqlite",
        about: "20 rows from SQLite",
        uploads: false,
        check: sqlite,
    },
];

/// `hello`, which stands for "the smallest request" elsewhere too.
pub const HELLO: &App = &APPS[0];

/// Waits for a second.
pub const SLEEP: &App = &App {
    name: "sleep",
    about: "time.sleep(1)",
    uploads: false,
    check: slept,
};

/// Hello, and an endless loop at `/burn`.
pub const BURN: &App = &App {
    name: "burn",
    about: "a string, and a loop",
    uploads: false,
    check: hello,
};

impl App {
    /// The body of a request, as `load.lua` makes it too.
    pub fn body(&self) -> Option<Vec<u8>> {
        self.uploads.then(|| b"0123456789abcdef".repeat(UPLOAD / 16))
    }

    /// Whether this is what the app replies.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, reply: &Reply) -> Result<(), String> {
        if reply.status != 200 {
            return Err(format!("status {}", reply.status));
        }
        (self.check)(&reply.body)
    }
}

fn same(body: &[u8], expected: &[u8]) -> Result<(), String> {
    if body == expected {
        return Ok(());
    }
    let at = body.iter().zip(expected).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{} bytes instead of {}, different from byte {at} on",
        body.len(),
        expected.len()
    ))
}

fn hello(body: &[u8]) -> Result<(), String> {
    same(body, b"<h1>Hello There!</h1>\n")
}

fn slept(body: &[u8]) -> Result<(), String> {
    same(body, b"slept\n")
}

fn upload(body: &[u8]) -> Result<(), String> {
    same(body, &b"0123456789abcdef".repeat(UPLOAD / 16))
}

fn page(body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).map_err(|_| "not UTF-8".to_owned())?;
    let last =
        "<td>50</td><td><a href=\"/items/50\">Kettle &lt;No. 50&gt; &amp; lid</a></td><td>31.00 EUR</td>";
    match text.matches("<tr ").count() {
        50 if text.contains(last) && text.ends_with("</html>") => Ok(()),
        rows => Err(format!(
            "{rows} rows in {} bytes, not the page that was asked for",
            body.len()
        )),
    }
}

fn json(body: &[u8]) -> Result<(), String> {
    let value = parse(body)?;
    let users = value["users"].as_array().map_or(0, Vec::len);
    if users == 89 && value["users"][88]["score"] == 111.25 && (10_000..12_000).contains(&body.len()) {
        return Ok(());
    }
    Err(format!("{users} users in {} bytes", body.len()))
}

fn sqlite(body: &[u8]) -> Result<(), String> {
    let value = parse(body)?;
    let rows = value.as_array().map_or(0, Vec::len);
    if rows == 20 && value[19]["id"] == 1942 && value[19]["title"] == "Note number 1942" {
        return Ok(());
    }
    Err(format!("{rows} rows"))
}

fn parse(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))
}
