//! The variables of one request, checked, and the environ that is made of them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use super::refusal::Refusal;
use crate::environ::{self, EnvironBlock, TooLong};
use crate::forwarded::{Vars, Withheld};
use crate::http::{
    Body, Connection, content_length, host_and_port, is_token, percent_decode, percent_encode,
};

/// Most variables of a request: web servers send about 25 and one for each field.
const VARS_MAX: usize = 256;

/// Longest method taken.
const METHOD_MAX: usize = 32;

/// How a web server tells the app's place from the path below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// SCRIPT_NAME and PATH_INFO as RFC 3875 has them: what is missing is empty.
    Split,
    /// As web servers send what they have not split: without PATH_INFO, all of the path is in SCRIPT_NAME (nginx and
    /// Apache over FastCGI), DOCUMENT_URI or REQUEST_URI (nginx over SCGI).
    Unsplit,
    /// PATH_INFO is the whole path, and SCRIPT_NAME its beginning: uwsgi's modifier 30.
    Joined,
}

/// In what wires differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What the paths mean.
    pub paths: Paths,
    /// The wire tells by itself where the body ends: CONTENT_LENGTH may be missing.
    pub body_ends: bool,
    /// Of a variable that is there twice the later one counts, as everybody has it over FastCGI: nginx sends both lines
    /// of `include fastcgi_params; fastcgi_param SCRIPT_NAME "";`. Not so CONTENT_LENGTH and HTTP_HOST.
    pub last_counts: bool,
}

impl Rules {
    /// Of a wire that goes by CONTENT_LENGTH and has each variable once.
    pub fn of(paths: Paths) -> Self {
        Self {
            paths,
            body_ends: false,
            last_counts: false,
        }
    }
}

/// The variables of one request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As an environ block.
    block: Vec<u8>,
    /// Those that go to the app as they are, in their order.
    vars: Vec<Var>,
    /// Whether a field is there twice.
    is_joined: bool,
    method: Range<u32>,
    target: Target,
    protocol: Option<Range<u32>>,
    /// SCRIPT_NAME and PATH_INFO together, and how long the first is.
    path: Vec<u8>,
    script: usize,
    host: Vec<u8>,
    port: Option<u16>,
    remote: Option<Range<u32>>,
    body: Body,
    /// What is missing and filled in.
    lacks: Lacks,
    is_https: bool,
}

/// Where a variable is in the block: its name, its value; with the lengths before them they are `name.start - 2` to
/// `value.end`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Var {
    name: Range<u32>,
    value: Range<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// REQUEST_URI
    Given(Range<u32>),
    /// Of path and query.
    Made(Vec<u8>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lacks {
    query: bool,
    protocol: bool,
    scheme: bool,
    remote: bool,
    name: bool,
    port: bool,
}

/// What is looked for among the variables.
#[derive(Default)]
struct Known {
    method: Option<Range<u32>>,
    script: Option<Range<u32>>,
    path: Option<Range<u32>>,
    document: Option<Range<u32>>,
    uri: Option<Range<u32>>,
    query: Option<Range<u32>>,
    protocol: Option<Range<u32>>,
    scheme: Option<Range<u32>>,
    uwsgi_scheme: Option<Range<u32>>,
    https: Option<Range<u32>>,
    length: Option<Range<u32>>,
    remote: Option<Range<u32>>,
    name: Option<Range<u32>>,
    port: Option<Range<u32>>,
    host: Option<Range<u32>>,
}

impl Head {
    /// Checks the variables in `block`, an environ block.
    ///
    /// - `wsgi.*` is the guest's own, and `UWSGI_*` would have a server load code and open files: both are left out.
    ///   So are HTTP_CONTENT_TYPE and HTTP_CONTENT_LENGTH, which PEP 3333 knows under other names, and HTTP_PROXY
    ///   (CVE-2016-5388).
    /// - Fields (`HTTP_*`) may be repeated; nginx before 1.23 sends each line of a field by itself. HTTP_HOST may not, nor
    ///   may anything else unless the rules say so.
    ///
    /// # Errors
    /// [`Refusal`], for the first thing that is wrong.
    pub fn new(block: Vec<u8>, rules: Rules) -> Result<Self, Refusal> {
        let mut vars: Vec<Var> = Vec::with_capacity(48);
        let mut known = Known::default();
        let (mut is_joined, mut count) = (false, 0);
        let mut start = 0;
        for pair in environ::iter(&block) {
            let (name, value) = pair?;
            let var = Var {
                name: span(start + 2, name.len()),
                value: span(start + 4 + name.len(), value.len()),
            };
            start = var.value.end as usize;
            count += 1;
            if count > VARS_MAX {
                return Err(Refusal::TooMany);
            }
            if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
                return Err(Refusal::Name);
            }
            if !is_clean(name, value) {
                return Err(Refusal::Control(shown(name)));
            }
            if rules.body_ends && name == b"CONTENT_LENGTH" && value == b"-1" {
                // Caddy's word for a body in chunks.
                continue;
            }
            let slot = known.slot(name);
            if let Some(slot) = slot
                && slot.replace(var.value.clone()).is_some()
                && (!rules.last_counts || matches!(name, b"CONTENT_LENGTH" | b"HTTP_HOST"))
            {
                return Err(Refusal::Repeated(shown(name)));
            }
            if is_left_out(name) {
                continue;
            }
            let at = |range: &Range<u32>| &block[range.start as usize..range.end as usize];
            let is_same = |other: &Var| at(&other.name) == name;
            match vars.iter().position(is_same) {
                None => {}
                Some(_) if name.starts_with(b"HTTP_") => is_joined = true,
                Some(before) if rules.last_counts => drop(vars.remove(before)),
                Some(_) => return Err(Refusal::Repeated(shown(name))),
            }
            vars.push(var);
        }
        Self::of(block, vars, is_joined, known, rules)
    }

    fn of(
        block: Vec<u8>,
        vars: Vec<Var>,
        is_joined: bool,
        known: Known,
        rules: Rules,
    ) -> Result<Self, Refusal> {
        let at = |range: &Range<u32>| &block[range.start as usize..range.end as usize];
        let get = |range: &Option<Range<u32>>| range.as_ref().map(at);
        let some = |range: &Option<Range<u32>>| get(range).filter(|value| !value.is_empty());
        let method = known.method.clone().ok_or(Refusal::Method)?;
        if !is_token(at(&method)) {
            return Err(Refusal::Method);
        }
        if at(&method).len() > METHOD_MAX || at(&method) == b"CONNECT" {
            return Err(Refusal::MethodUnknown);
        }
        let body = match some(&known.length) {
            Some(length) => {
                Body::Length(content_length(length).map_err(|refusal| match refusal.status() {
                    413 => Refusal::LengthTooLong,
                    _ => Refusal::Length,
                })?)
            }
            None if rules.body_ends => Body::Chunked,
            None => Body::Absent,
        };
        let raw = some(&known.uri).map(path_of);
        let (path, script) = path(
            rules.paths,
            get(&known.script).unwrap_or_default(),
            get(&known.path),
            some(&known.document),
            raw,
        )?;
        let (host, port) = match some(&known.host) {
            Some(host) => host_and_port(host).ok_or(Refusal::Host)?,
            None => (some(&known.name).unwrap_or_default(), None),
        };
        let host = match host {
            // RFC 3875 4.1.14: SERVER_NAME may not be empty.
            b"" => b"localhost".to_vec(),
            host => host.to_vec(),
        };
        let target = match &known.uri {
            Some(uri) if uri.start < uri.end => Target::Given(uri.clone()),
            _ => {
                let mut made = Vec::new();
                percent_encode(&path, &mut made);
                if let Some(query) = some(&known.query) {
                    made.push(b'?');
                    made.extend_from_slice(query);
                }
                Target::Made(made)
            }
        };
        let is_https = match some(&known.scheme).or(some(&known.uwsgi_scheme)) {
            Some(scheme) => scheme == b"https",
            None => matches!(some(&known.https), Some(b"on" | b"1")),
        };
        let is_address = |value: &[u8]| {
            let text = str::from_utf8(value).ok();
            text.is_some_and(|text| text.parse::<IpAddr>().is_ok())
        };
        let remote = known.remote.clone().filter(|remote| is_address(at(remote)));
        let lacks = Lacks {
            query: known.query.is_none(),
            protocol: some(&known.protocol).is_none(),
            scheme: some(&known.scheme).is_none(),
            remote: known.remote.is_none(),
            name: some(&known.name).is_none(),
            port: some(&known.port).is_none(),
        };
        Ok(Self {
            vars,
            is_joined,
            method,
            target,
            protocol: known.protocol.clone().filter(|_| !lacks.protocol),
            path,
            script,
            host,
            port,
            remote,
            body,
            lacks,
            is_https,
            block,
        })
    }

    fn at(&self, range: &Range<u32>) -> &[u8] {
        &self.block[range.start as usize..range.end as usize]
    }

    /// REQUEST_METHOD: a token of at most 32 bytes, never CONNECT.
    pub fn method(&self) -> &[u8] {
        self.at(&self.method)
    }

    /// REQUEST_URI, or what it would be.
    pub fn target(&self) -> &[u8] {
        match &self.target {
            Target::Given(uri) => self.at(uri),
            Target::Made(made) => made,
        }
    }

    /// SERVER_PROTOCOL, `HTTP/1.0` if that is missing.
    pub fn protocol(&self) -> &[u8] {
        self.protocol
            .as_ref()
            .map_or(b"HTTP/1.0", |protocol| self.at(protocol))
    }

    /// How long the body is.
    pub fn body(&self) -> Body {
        self.body
    }

    /// The name of the host asked for, without a port.
    pub fn host(&self) -> &[u8] {
        &self.host
    }

    /// SCRIPT_NAME and PATH_INFO together.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// REMOTE_ADDR, if it is an IP address.
    pub fn remote(&self) -> Option<&str> {
        str::from_utf8(self.at(self.remote.as_ref()?)).ok()
    }

    /// How much of the path is SCRIPT_NAME for an app at `mount`.
    pub fn script_length(&self, mount: &str) -> usize {
        self.script.max(mount.len())
    }

    /// The path as the client wrote it, and what follows its `?`.
    pub fn raw_path_and_query(&self) -> (&[u8], Option<&[u8]>) {
        let target = self.target();
        let rest = path_of(target);
        let start = target.len() - rest.len();
        match target[start..].iter().position(|&b| b == b'?') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        }
    }

    /// The value of the first field of this name, given in lower case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The value of the field of this name, if there is one and no second.
    pub fn only_field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.values(name);
        let field = fields.next()?;
        fields.next().is_none().then_some(field)
    }

    /// The values of the fields of this name, given in lower case, in order.
    pub fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        // The two that CGI has by names of their own.
        let is_bare = matches!(name, "content-type" | "content-length");
        let is_same = move |key: &[u8]| {
            let key = match is_bare {
                true => Some(key),
                false => key.strip_prefix(b"HTTP_"),
            };
            key.is_some_and(|key| is_key_of(key, name.as_bytes()))
        };
        self.vars
            .iter()
            .filter(move |var| is_same(self.at(&var.name)))
            .map(|var| self.at(&var.value))
    }

    /// Makes the environ block of this request: the variables as they came, without those that are left out.
    ///
    /// - SCRIPT_NAME and PATH_INFO are split where the web server has split them, or behind `mount` if that is longer.
    /// - Fields of one name are joined with `,`, or `; ` for Cookie.
    /// - What is missing and has to be there is filled in: SERVER_NAME and SERVER_PORT from Host, REQUEST_SCHEME from
    ///   HTTPS, QUERY_STRING, SERVER_PROTOCOL, and REMOTE_ADDR from the connection.
    /// - What a proxy before the web server says sets the same variables as over HTTP.
    /// - The server's own fields take the place of the client's of these names.
    ///
    /// # Errors
    /// [`TooLong`] when fields joined do not fit a value.
    pub fn environ(&self, connection: &Connection<'_>, mount: &str) -> Result<Vec<u8>, TooLong> {
        let mut block = EnvironBlock::with_capacity(self.block.len() + 384);
        let (script, path) = self.path.split_at(self.script_length(mount));
        let told = connection.forwarded;
        let prefix = told.map_or("", |told| &told.prefix);
        let withheld = told.map_or(Withheld::default(), |told| told.withheld);
        let told = told.map(|told| told.vars(self.only_field("host").unwrap_or_default()));
        let told = told.unwrap_or_default();
        block.push_parts(&[b"SCRIPT_NAME"], &[prefix.as_bytes(), script])?;
        block.push(b"PATH_INFO", path)?;
        let is_own = |name: &[u8]| {
            let name = name.strip_prefix(b"HTTP_");
            let is_key = |(own, _): &(&str, &[u8])| name.is_some_and(|name| is_key_of(name, own.as_bytes()));
            connection.own_fields.iter().any(is_key) || name.is_some_and(|name| withheld.has(name))
        };
        let is_told = |name: &[u8]| {
            let is_scheme = name == b"HTTPS" && told.get(b"REQUEST_SCHEME").is_some();
            is_scheme || told.get(name).is_some()
        };
        for (index, var) in self.vars.iter().enumerate() {
            let (name, value) = (self.at(&var.name), self.at(&var.value));
            if is_own(name) || is_told(name) || (value.is_empty() && self.is_filled_in(name)) {
                continue;
            }
            let is_same = |other: &&Var| self.at(&other.name) == name;
            if !self.is_joined || !name.starts_with(b"HTTP_") {
                block.push(name, value)?;
            } else if !self.vars[..index].iter().any(|other| is_same(&other)) {
                let separator: &[u8] = if name == b"HTTP_COOKIE" { b"; " } else { b"," };
                block.push_with(&[name], |joined| {
                    joined.extend_from_slice(value);
                    for other in self.vars[index + 1..].iter().filter(is_same) {
                        joined.extend_from_slice(separator);
                        joined.extend_from_slice(self.at(&other.value));
                    }
                })?;
            }
        }
        self.fill_in(&mut block, connection, &told)?;
        for (name, value) in told.iter() {
            block.push(name, value)?;
        }
        for (name, value) in connection.own_fields {
            let mut key = b"HTTP_".to_vec();
            key.extend(name.bytes().map(as_key));
            block.push(&key, value)?;
        }
        Ok(block.into_bytes())
    }

    /// Whether an empty value of this name is as good as none.
    fn is_filled_in(&self, name: &[u8]) -> bool {
        matches!(
            name,
            b"SERVER_NAME" | b"SERVER_PORT" | b"SERVER_PROTOCOL" | b"REQUEST_SCHEME" | b"REQUEST_URI"
        )
    }

    /// What neither the web server nor a proxy before it has told.
    fn fill_in(
        &self,
        block: &mut EnvironBlock,
        connection: &Connection<'_>,
        told: &Vars,
    ) -> Result<(), TooLong> {
        let is_told = |name: &[u8]| told.get(name).is_some();
        let scheme = match (told.get(b"REQUEST_SCHEME"), self.is_https) {
            (Some(b"https"), _) | (None, true) => "https",
            (Some(_), _) => "http",
            (None, false) => connection.scheme,
        };
        if self.lacks.scheme && !is_told(b"REQUEST_SCHEME") {
            block.push(b"REQUEST_SCHEME", scheme.as_bytes())?;
        }
        if self.lacks.query {
            let (_, query) = self.raw_path_and_query();
            block.push(b"QUERY_STRING", query.unwrap_or_default())?;
        }
        if self.lacks.protocol {
            block.push(b"SERVER_PROTOCOL", self.protocol())?;
        }
        if self.lacks.remote && !is_told(b"REMOTE_ADDR") {
            block.push(b"REMOTE_ADDR", connection.remote.0.as_bytes())?;
        }
        if self.lacks.name && !is_told(b"SERVER_NAME") {
            block.push(b"SERVER_NAME", &self.host)?;
        }
        if self.lacks.port && !is_told(b"SERVER_PORT") {
            let usual = if scheme == "https" { 443 } else { 80 };
            block.push(b"SERVER_PORT", self.port.unwrap_or(usual).to_string().as_bytes())?;
        }
        if let Target::Made(made) = &self.target {
            block.push(b"REQUEST_URI", made)?;
        }
        Ok(())
    }
}

impl Known {
    /// Where the value of this name is kept.
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Range<u32>>> {
        Some(match name {
            b"REQUEST_METHOD" => &mut self.method,
            b"SCRIPT_NAME" => &mut self.script,
            b"PATH_INFO" => &mut self.path,
            b"DOCUMENT_URI" => &mut self.document,
            b"REQUEST_URI" => &mut self.uri,
            b"QUERY_STRING" => &mut self.query,
            b"SERVER_PROTOCOL" => &mut self.protocol,
            b"REQUEST_SCHEME" => &mut self.scheme,
            b"UWSGI_SCHEME" => &mut self.uwsgi_scheme,
            b"HTTPS" => &mut self.https,
            b"CONTENT_LENGTH" => &mut self.length,
            b"REMOTE_ADDR" => &mut self.remote,
            b"SERVER_NAME" => &mut self.name,
            b"SERVER_PORT" => &mut self.port,
            b"HTTP_HOST" => &mut self.host,
            _ => return None,
        })
    }
}

fn span(start: usize, length: usize) -> Range<u32> {
    // Blocks are bounded by `limits.request-head`, far below u32::MAX.
    start as u32..(start + length) as u32
}

/// Variables that do not go to the app as they are.
fn is_left_out(name: &[u8]) -> bool {
    match name {
        // Put together anew.
        b"SCRIPT_NAME" | b"PATH_INFO" => true,
        b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH" | b"HTTP_PROXY" => true,
        _ => name.starts_with(b"wsgi.") || name.starts_with(b"UWSGI_"),
    }
}

/// No control characters; but a decoded path may hold any but NUL.
fn is_clean(name: &[u8], value: &[u8]) -> bool {
    let is_path = matches!(
        name,
        b"PATH_INFO" | b"SCRIPT_NAME" | b"DOCUMENT_URI" | b"PATH_TRANSLATED" | b"SCRIPT_FILENAME"
    );
    match is_path {
        true => !value.contains(&0),
        false => !value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f),
    }
}

/// Whether `key` is what becomes of the field name `name`, which is in lower case.
fn is_key_of(key: &[u8], name: &[u8]) -> bool {
    key.len() == name.len() && key.iter().zip(name).all(|(&key, &name)| key == as_key(name))
}

fn as_key(b: u8) -> u8 {
    if b == b'-' { b'_' } else { b.to_ascii_uppercase() }
}

fn shown(name: &[u8]) -> String {
    name.escape_ascii().take(64).map(char::from).collect()
}

/// A request target without scheme and authority.
fn path_of(target: &[u8]) -> &[u8] {
    let after = match target {
        [b'/', ..] => return target,
        [b'h' | b'H', ..] => target.windows(3).position(|part| part == b"://").map(|at| at + 3),
        _ => None,
    };
    let Some(after) = after else { return target };
    let end = target[after..].iter().position(|b| matches!(b, b'/' | b'?'));
    end.map_or(&target[target.len()..], |at| &target[after + at..])
}

/// SCRIPT_NAME and PATH_INFO together, and the length of the first.
fn path(
    paths: Paths,
    script: &[u8],
    path: Option<&[u8]>,
    document: Option<&[u8]>,
    uri: Option<&[u8]>,
) -> Result<(Vec<u8>, usize), Refusal> {
    let unsplit = || -> Cow<'_, [u8]> {
        let decoded = |uri: &[u8]| {
            let mut decoded = Vec::new();
            percent_decode(uri.split(|&b| b == b'?').next().unwrap_or_default(), &mut decoded);
            decoded
        };
        match (script, document, uri) {
            ([_, ..], ..) => script.into(),
            (_, Some(document), _) => document.into(),
            (_, _, Some(uri)) => decoded(uri).into(),
            (_, None, None) => b""[..].into(),
        }
    };
    let (script, path): (&[u8], Cow<'_, [u8]>) = match (paths, path) {
        (Paths::Unsplit | Paths::Joined, None) => (b"", unsplit()),
        (Paths::Split, None) => (script, b""[..].into()),
        (_, Some(path)) => (script, path.into()),
    };
    // Before PATH_INFO's own slash; lighttpd has `/` and `x` for an app at the root.
    let (script, is_cut) = match script.strip_suffix(b"/") {
        Some(script) => (script, true),
        None => (script, false),
    };
    let mut whole = match paths {
        Paths::Joined if is_below(&path, script) => Vec::new(),
        _ => script.to_vec(),
    };
    if path.first() != Some(&b'/') && (is_cut || whole.is_empty() && path.is_empty()) {
        whole.push(b'/');
    }
    whole.extend_from_slice(&path);
    let is_fit = |path: &[u8]| path.is_empty() || path[0] == b'/';
    match is_fit(&whole) && is_fit(&whole[script.len()..]) {
        true => Ok((whole, script.len())),
        false => Err(Refusal::Path),
    }
}

/// Whether `path` is `place` or below it.
fn is_below(path: &[u8], place: &[u8]) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
