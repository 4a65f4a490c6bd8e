//! Content codings: which of them a client takes (RFC 9110 12.5.3).

use wasgi_config::Compressor;

/// A way to compress content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// In the order in which they are chosen for files where a client likes several alike.
    pub(crate) const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstd, Coding::Gzip];

    /// As in Content-Encoding.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// What is added to the name of a file that holds another compressed.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
            Coding::Gzip => ".gz",
        }
    }
}

impl From<Compressor> for Coding {
    fn from(compressor: Compressor) -> Self {
        match compressor {
            Compressor::Brotli => Coding::Brotli,
            Compressor::Gzip => Coding::Gzip,
        }
    }
}

/// How much a client likes each coding, in thousandths; 0: it does not take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Accepted {
    codings: [u16; 3],
    /// What it does not mention is taken, but anything it does mention is liked better.
    identity: u16,
}

impl Accepted {
    /// Reads an `Accept-Encoding` field. What is malformed in it is not accepted.
    pub(crate) fn of(field: Option<&[u8]>) -> Self {
        let mut named = [None; 3];
        let (mut identity, mut any) = (None, None);
        for element in field.unwrap_or_default().split(|&b| b == b',') {
            let mut parts = element.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.next().map_or(Some(1000), weight).unwrap_or(0);
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if is("identity") {
                identity = Some(weight);
            } else if is("*") {
                any = Some(weight);
            } else if let Some(index) =
                (0..3).find(|&index| is(Coding::ALL[index].name()) || (index == 2 && is("x-gzip")))
            {
                named[index] = Some(weight);
            }
        }
        Self {
            codings: named.map(|weight| weight.or(any).unwrap_or(0)),
            identity: identity.unwrap_or(0),
        }
    }

    /// The best of the codings that are on offer, the first of those that the client likes alike; `None` to send it as it
    /// is.
    pub(crate) fn best(self, offered: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best: Option<(u16, Coding)> = None;
        for coding in offered {
            let weight = self.codings[coding as usize];
            if weight > 0 && best.is_none_or(|(other, _)| weight > other) {
                best = Some((weight, coding));
            }
        }
        best.filter(|(weight, _)| *weight >= self.identity)
            .map(|(_, coding)| coding)
    }
}

/// `q=0.5`, in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let text = str::from_utf8(parameter).ok()?;
    let (name, value) = text.split_once('=')?;
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    if !name.trim().eq_ignore_ascii_case("q") || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_what_a_client_takes_is_chosen() {
        use Coding::{Brotli, Gzip, Zstd};
        const ALL: &[Coding] = &Coding::ALL;
        for (field, offered, expected) in [
            ("gzip, deflate, br, zstd", ALL, Some(Brotli)),
            ("gzip, deflate", ALL, Some(Gzip)),
            ("gzip, zstd", ALL, Some(Zstd)),
            ("gzip, br", &[Gzip], Some(Gzip)),
            ("gzip;q=1.0, br;q=0.9", ALL, Some(Gzip)),
            ("gzip;q=0.5, br;q=0.5, zstd;q=0.501", ALL, Some(Zstd)),
            ("br;q=0, *", ALL, Some(Zstd)),
            ("*;q=0", ALL, None),
            ("*", &[Gzip], Some(Gzip)),
            ("gzip;q=0", ALL, None),
            ("GZIP ; Q=1", ALL, Some(Gzip)),
            ("x-gzip", ALL, Some(Gzip)),
            ("identity, gzip;q=0.5", ALL, None),
            ("identity;q=0.5, gzip", ALL, Some(Gzip)),
            ("gzip;q=2", ALL, None),
            ("gzip;q=0.0001", ALL, None),
            ("gzip;level=1", ALL, None),
            ("deflate", ALL, None),
            ("", ALL, None),
            ("br", &[], None),
        ] {
            let best = Accepted::of(Some(field.as_bytes())).best(offered.iter().copied());
            assert_eq!(best, expected, "{field}");
        }
        assert_eq!(Accepted::of(None).best(Coding::ALL), None);
        let both = Accepted::of(Some(b"br, gzip"));
        assert_eq!(both.best([Gzip, Brotli]), Some(Gzip));
    }
}
