//! The names and numbers host and guest share, as `python-wasm/ABI.md` has them; a test below compares the three.

/// Module name of our imports.
pub(crate) const MODULE: &str = "wasgi";

pub(crate) const INITIALIZE: &str = "_initialize";
pub(crate) const START: &str = "wasgi_start";
pub(crate) const SEAL: &str = "wasgi_seal";
pub(crate) const RESTORED: &str = "wasgi_restored";
pub(crate) const HANDLE: &str = "wasgi_handle";
pub(crate) const MAIN: &str = "wasgi_main";

pub(crate) const BLOCK_READ: &str = "block_read";
pub(crate) const INTERRUPT_WORDS: &str = "interrupt_words";
pub(crate) const INTERRUPT_REASON: &str = "interrupt_reason";
pub(crate) const IS_NEWS: &str = "is_news";
pub(crate) const ENTROPY: &str = "entropy";
pub(crate) const BODY_READ: &str = "body_read";
pub(crate) const REPLY_HEAD: &str = "reply_head";
pub(crate) const REPLY_BODY: &str = "reply_body";
pub(crate) const REPLY_FILE: &str = "reply_file";
pub(crate) const TICK: &str = "tick";
pub(crate) const FILE_LOCK: &str = "file_lock";
pub(crate) const FILE_LOCK_TEST: &str = "file_lock_test";

/// Flag of `reply_body`: nothing follows.
pub(crate) const REPLY_LAST: i32 = 1;

/// Why SIGXCPU was raised: results of `interrupt_reason`.
pub(crate) mod reason {
    pub(crate) const TIME_LIMIT: i32 = 0;
    pub(crate) const KILLED: i32 = 1;
    pub(crate) const CPU_LIMIT: i32 = 2;
}

/// Result of a call when all went well.
pub(crate) const OK: i32 = 0;

/// Result of `wasgi_seal` when the app holds files open.
pub(crate) const FILES_OPEN: i32 = 2;

/// WASI errnos that our imports answer with (negated, but for the locks and WASI's own functions).
pub(crate) mod errno {
    pub(crate) const EAGAIN: i32 = 6;
    pub(crate) const EBADF: i32 = 8;
    pub(crate) const EFBIG: i32 = 22;
    pub(crate) const EINTR: i32 = 27;
    pub(crate) const EINVAL: i32 = 28;
    pub(crate) const EMFILE: i32 = 33;
    pub(crate) const ENOENT: i32 = 44;
    pub(crate) const ENOLCK: i32 = 46;
    pub(crate) const ENOSPC: i32 = 51;
    pub(crate) const EPIPE: i32 = 64;
    pub(crate) const ETIMEDOUT: i32 = 73;
    pub(crate) const EXDEV: i32 = 75;
}

/// Why a head was refused: the low four bits of `reply_head`'s result.
pub(crate) mod refusal {
    pub(crate) const BAD_STATUS: i32 = 1;
    pub(crate) const BAD_NAME: i32 = 2;
    pub(crate) const BAD_VALUE: i32 = 3;
    pub(crate) const HOP_BY_HOP: i32 = 4;
    pub(crate) const TOO_LARGE: i32 = 5;
    pub(crate) const ALREADY_SENT: i32 = 6;
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../python-wasm/ABI.md");
    const HEADER: &str = include_str!("../../../python-wasm/entry/abi.h");

    fn rows(section: &str) -> Vec<&'static str> {
        let start = PAGE.find(section).expect("section");
        let rest = &PAGE[start + section.len()..];
        let end = rest.find("\n## ").unwrap_or(rest.len());
        rest[..end]
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|line| &line[..line.find('`').expect("closing quote")])
            .collect()
    }

    #[test]
    fn page_header_and_host_name_the_same_functions() {
        let exports = [INITIALIZE, START, SEAL, RESTORED, HANDLE, MAIN];
        let imports = [
            BLOCK_READ,
            INTERRUPT_WORDS,
            INTERRUPT_REASON,
            IS_NEWS,
            ENTROPY,
            BODY_READ,
            REPLY_HEAD,
            REPLY_BODY,
            REPLY_FILE,
            TICK,
            FILE_LOCK,
            FILE_LOCK_TEST,
        ];
        assert_eq!(rows("## Exports"), exports);
        assert_eq!(rows("## Imports"), imports);
        let declared = |macro_name: &str| -> Vec<&str> {
            HEADER
                .lines()
                .filter(|line| !line.starts_with("#define"))
                .filter_map(|line| line.strip_prefix(macro_name)?.strip_prefix("(\""))
                .map(|line| &line[..line.find('"').expect("closing quote")])
                .collect()
        };
        assert_eq!(declared("WASGI_IMPORT"), imports);
        assert_eq!(declared("WASGI_EXPORT"), exports[1..]);
    }

    #[test]
    fn page_header_and_host_have_the_same_numbers() {
        let defined = |name: &str| -> i32 {
            let line = HEADER
                .lines()
                .find(|line| line.starts_with(&format!("#define {name} ")))
                .expect(name);
            line.rsplit(' ').next().expect("value").parse().expect("number")
        };
        assert_eq!(defined("WASGI_REPLY_LAST"), REPLY_LAST);
        assert_eq!(defined("WASGI_OK"), OK);
        assert_eq!(defined("WASGI_FILES_OPEN"), FILES_OPEN);
        for (name, number, words) in [
            ("WASGI_TIME_LIMIT", reason::TIME_LIMIT, "time limit"),
            ("WASGI_KILLED", reason::KILLED, "killed by the operator"),
            ("WASGI_CPU_LIMIT", reason::CPU_LIMIT, "limit of CPU time"),
            ("WASGI_BAD_STATUS", refusal::BAD_STATUS, "bad status"),
            ("WASGI_BAD_NAME", refusal::BAD_NAME, "bad field name"),
            ("WASGI_BAD_VALUE", refusal::BAD_VALUE, "bad field\nvalue"),
            ("WASGI_HOP_BY_HOP", refusal::HOP_BY_HOP, "hop-by-hop field"),
            ("WASGI_TOO_LARGE", refusal::TOO_LARGE, "head too large"),
            (
                "WASGI_ALREADY_SENT",
                refusal::ALREADY_SENT,
                "the head has already gone out",
            ),
        ] {
            assert_eq!(defined(name), number, "{name}");
            assert!(
                PAGE.contains(&format!("{number} {words}")),
                "ABI.md: {number} {words}"
            );
        }
        for (name, number) in [
            ("EINTR", errno::EINTR),
            ("EFBIG", errno::EFBIG),
            ("ETIMEDOUT", errno::ETIMEDOUT),
            ("EPIPE", errno::EPIPE),
            ("EBADF", errno::EBADF),
            ("EINVAL", errno::EINVAL),
            ("ENOENT", errno::ENOENT),
        ] {
            assert!(
                PAGE.contains(&format!("{name} ({number})")),
                "ABI.md: {name} ({number})"
            );
        }
    }
}
