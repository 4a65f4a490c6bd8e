//! A folder's files as a page, where the configuration asks for one.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, FileType};

use super::names::is_public;

/// Most names on one page.
const MOST: usize = 10_000;

/// The page: the names that are given out, folders with a slash, sorted. Reads from disk.
///
/// # Errors
/// The system's.
pub(super) fn page(folder: &OwnedFd, is_top: bool) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        let slash = match entry.file_type() {
            FileType::Directory => "/",
            FileType::RegularFile | FileType::Symlink | FileType::Unknown => "",
            _ => continue,
        };
        if is_public(name) && names.len() < MOST {
            names.push((name.to_vec(), slash));
        }
    }
    names.sort();
    let mut page = String::from(
        "<!doctype html>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width\">\n<title>Files</title>\n<ul>\n",
    );
    if !is_top {
        page.push_str("<li><a href=\"../\">../</a>\n");
    }
    for (name, slash) in names {
        page.push_str("<li><a href=\"./");
        encode(&mut page, &name);
        let _ = write!(page, "{slash}\">");
        escape(&mut page, &String::from_utf8_lossy(&name));
        let _ = writeln!(page, "{slash}</a>");
    }
    page.push_str("</ul>\n");
    Ok(page)
}

/// A name as a path segment of a link (RFC 3986 3.3).
fn encode(page: &mut String, name: &[u8]) {
    for &b in name {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            page.push(char::from(b));
        } else {
            let _ = write!(page, "%{b:02X}");
        }
    }
}

fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '&' => page.push_str("&amp;"),
            '"' => page.push_str("&quot;"),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_cannot_be_more_than_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b<script>.txt", "a \"&%.txt", ".hidden", "app.py", "javascript:x"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("sub")).unwrap();
        let page = page(&fs::File::open(folder.path()).unwrap().into(), true).unwrap();
        let links: Vec<_> = page.lines().filter(|line| line.starts_with("<li>")).collect();
        assert_eq!(
            links,
            [
                "<li><a href=\"./a%20%22%26%25.txt\">a &quot;&amp;%.txt</a>",
                "<li><a href=\"./b%3Cscript%3E.txt\">b&lt;script&gt;.txt</a>",
                "<li><a href=\"./javascript%3Ax\">javascript:x</a>",
                "<li><a href=\"./sub/\">sub/</a>",
            ]
        );
    }
}
