//! What stands for something else within a value: `$(NAME)`, `@(file)`, `%(option)`.

/// How often a value is filled in before it is taken for one that stands for itself.
const MOST: usize = 100;

/// Longest value that comes of it.
const LONGEST: usize = 64 << 10;

/// Fills in each `symbol(name)` of a text by what `of` gives for the name; where it gives nothing, the text is left as it
/// is. With `again`, what was filled in is looked through as well.
///
/// # Errors
/// What `of` says, or that there is no end to it.
pub(super) fn expand(
    text: &str,
    symbol: char,
    again: bool,
    mut of: impl FnMut(&str) -> Result<Option<String>, String>,
) -> Result<String, String> {
    let opening = format!("{symbol}(");
    let (mut done, mut rest) = (String::new(), text.to_owned());
    let mut rounds = 0;
    while let Some(start) = rest.find(&opening) {
        let name = match closed(&rest[start + opening.len()..]) {
            Some(name) => name.to_owned(),
            None => break,
        };
        let end = start + opening.len() + name.len() + 1;
        let value = match name.as_str() {
            "" => None,
            name => of(name)?,
        };
        match value {
            None => {
                done.push_str(&rest[..end]);
                rest.drain(..end);
            }
            Some(value) => {
                rounds += 1;
                if rounds > MOST || done.len() + rest.len() + value.len() > LONGEST {
                    return Err(format!("{opening}{name}) stands for itself, or for too much"));
                }
                done.push_str(&rest[..start]);
                match again {
                    true => rest.replace_range(..end, &value),
                    false => {
                        done.push_str(&value);
                        rest.drain(..end);
                    }
                }
            }
        }
    }
    done.push_str(&rest);
    Ok(done)
}

/// What comes before the bracket that closes the one before `text`.
fn closed(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(&text[..at]),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The value of `%(name)`: of one option, or of several with what is done with them, from left to right:
/// `%(processes cores + 2)` puts the first two side by side, and adds 2.
///
/// Source: uWSGI, `uwsgi_manage_placeholder()`.
pub(super) fn placeholder(name: &str, value_of: impl Fn(&str) -> Option<String>) -> Option<String> {
    if !name.contains(' ') {
        return value_of(name);
    }
    let number = |text: &str| {
        let digits = text.trim_start_matches('-').len();
        let end = text.len() - digits
            + text[text.len() - digits..]
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits);
        text[..end].parse::<i64>().unwrap_or(0)
    };
    let (mut current, mut then) = (String::new(), "");
    for word in name.split(' ').filter(|word| !word.is_empty()) {
        match word {
            "+" | "-" | "*" | "/" => then = word,
            "++" => current = number(&current).saturating_add(1).to_string(),
            "--" => current = number(&current).saturating_sub(1).to_string(),
            _ => {
                let value = match word.bytes().all(|b| b.is_ascii_digit()) {
                    true => word.to_owned(),
                    false => value_of(word).unwrap_or_default(),
                };
                let (a, b) = (number(&current), number(&value));
                current = match then {
                    "+" => a.saturating_add(b).to_string(),
                    "-" => a.saturating_sub(b).to_string(),
                    "*" => a.saturating_mul(b).to_string(),
                    "/" => a.checked_div(b).unwrap_or(0).to_string(),
                    _ => current + &value,
                };
                then = "";
            }
        }
    }
    Some(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_brackets_are_filled_in() {
        let of = |name: &str| {
            Ok(match name {
                "A" => Some("ada".to_owned()),
                "TRICK" => Some("$(A)".to_owned()),
                "a(b)c" => Some("nested".to_owned()),
                _ => None,
            })
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "ada"),
            ("x$(A)y$(A)z", "xadayadaz"),
            ("$(NONE) $(A)", "$(NONE) ada"),
            ("$(TRICK)", "$(A)"),
            ("$(a(b)c)", "nested"),
            ("$() $(A", "$() $(A"),
            ("$A (A) $ (A)", "$A (A) $ (A)"),
        ] {
            assert_eq!(expand(text, '$', false, of).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(expand("$(TRICK)!", '$', true, of).as_deref(), Ok("ada!"));
        let itself = |_: &str| Ok(Some("x%(me)".to_owned()));
        assert!(expand("%(me)", '%', true, itself).is_err());
    }

    #[test]
    fn placeholders_reckon() {
        let of = |name: &str| match name {
            "processes" => Some("2".to_owned()),
            "cores" => Some("8".to_owned()),
            _ => None,
        };
        for (name, expected) in [
            ("processes", Some("2")),
            ("nothing", None),
            ("processes cores + 2", Some("30")),
            ("processes * cores", Some("16")),
            ("cores / 0", Some("0")),
            ("cores - 10", Some("-2")),
            ("processes ++", Some("3")),
            ("cores --", Some("7")),
        ] {
            assert_eq!(placeholder(name, of).as_deref(), expected, "{name}");
        }
    }
}
