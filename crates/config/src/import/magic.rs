//! The letters that stand for a file's own name, place and surroundings: `%d`, `%n`, `%p`...
//!
//! Source: uWSGI, "Configuring uWSGI", Magic variables; `config_magic_table_fill()`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{Gid, Group, Uid, User};

/// What each letter stands for while one file is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Magic(HashMap<char, String>);

/// Letters that a file included does not change, and the letters of the file itself.
const OF_THE_FIRST: [(char, char); 10] = [
    ('O', 'o'),
    ('D', 'd'),
    ('S', 's'),
    ('P', 'p'),
    ('C', 'c'),
    ('E', 'e'),
    ('N', 'n'),
    ('X', 'x'),
    ('I', 'i'),
    ('J', 'j'),
];

impl Magic {
    /// Of a file as it is named, with the section that is asked for, if one is.
    pub(super) fn of(named: &str, section: &str, current: &Path, first: Option<&Magic>) -> Self {
        let mut letters = surroundings(current);
        let joined = current.join(named);
        // A link's own place counts, not that of the file it leads to.
        let path = match fs::symlink_metadata(&joined) {
            Ok(found) if !found.is_symlink() => fs::canonicalize(&joined).unwrap_or(joined),
            _ => joined,
        };
        let full = path.to_string_lossy().into_owned();
        let at = full.rfind('/').map_or(0, |at| at + 1);
        let (folder, name) = full.split_at(at);
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        letters.extend([
            ('o', named.to_owned()),
            ('p', full.clone()),
            ('s', name.to_owned()),
            ('d', folder.to_owned()),
            ('n', stem.to_owned()),
            ('e', ending.to_owned()),
            ('c', parts.last().copied().unwrap_or_default().to_owned()),
            ('x', section.to_owned()),
            ('j', hash(&full)),
        ]);
        if let Ok(found) = fs::symlink_metadata(&path) {
            use std::os::unix::fs::MetadataExt;
            letters.insert('i', found.ino().to_string());
        }
        letters.extend(
            ('0'..='9')
                .zip(parts)
                .map(|(digit, part)| (digit, part.to_owned())),
        );
        for (upper, lower) in OF_THE_FIRST {
            let value = match first {
                Some(first) => first.0.get(&upper),
                None => letters.get(&lower),
            };
            if let Some(value) = value.cloned() {
                letters.insert(upper, value);
            }
        }
        Self(letters)
    }

    /// A line with its letters filled in. Those without a meaning vanish; `%(` is left for later.
    pub(super) fn fill_in(&self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line.chars();
        while let Some(c) = rest.next() {
            match (c, rest.clone().next()) {
                ('%', Some('(')) | ('%', None) => out.push('%'),
                ('%', Some(letter)) => {
                    rest.next();
                    out.push_str(self.0.get(&letter).map_or("", String::as_str));
                }
                _ => out.push(c),
            }
        }
        out
    }
}

/// What does not depend on the file.
fn surroundings(current: &Path) -> HashMap<char, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (uid, gid) = (Uid::current(), Gid::current());
    let user = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(gid).ok().flatten().map(|group| group.name);
    let host = nix::unistd::gethostname().unwrap_or_default();
    HashMap::from([
        ('%', "%".to_owned()),
        ('v', current.to_string_lossy().into_owned()),
        ('h', host.to_string_lossy().into_owned()),
        ('t', now.as_secs().to_string()),
        ('T', now.as_micros().to_string()),
        ('k', available_parallelism().map_or(1, usize::from).to_string()),
        ('u', uid.to_string()),
        ('U', user.unwrap_or_else(|| uid.to_string())),
        ('g', gid.to_string()),
        ('G', group.unwrap_or_else(|| gid.to_string())),
    ])
}

/// The path's hash, as uWSGI has it: djb33x, its bytes in hexadecimal as they lie in memory.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(5381_u32, |hash, byte| {
        (hash << 5).wrapping_add(hash) ^ u32::from(byte)
    });
    hash.to_le_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_stand_for_the_file_and_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = fs::canonicalize(folder.path()).unwrap();
        fs::write(place.join("shop.web.ini"), "").unwrap();
        let magic = Magic::of("shop.web.ini", "blue", &place, None);
        let (shown, name) = (place.display(), place.file_name().unwrap().to_str().unwrap());
        for (line, expected) in [
            ("%dvenv", format!("{shown}/venv")),
            ("%d%n.pid", format!("{shown}/shop.web.pid")),
            (
                "%p %s %e %o",
                format!("{shown}/shop.web.ini shop.web.ini ini shop.web.ini"),
            ),
            ("%c %x %v", format!("{name} blue {shown}")),
            (
                "%0",
                place
                    .components()
                    .nth(1)
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            ),
            ("100%% %(later) %q%", "100% %(later) %".to_owned()),
            ("%N %X", "shop.web blue".to_owned()),
        ] {
            assert_eq!(magic.fill_in(line), expected, "{line}");
        }
        let included = Magic::of("base.ini", "", &place, Some(&magic));
        assert_eq!(included.fill_in("%n of %N"), "base of shop.web");
    }
}
