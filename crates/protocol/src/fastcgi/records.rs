//! Follows the records of one connection.

use super::{
    ABORT_REQUEST, BEGIN_REQUEST, DATA, Ended, GET_VALUES, HEADER, PARAMS, STDIN, UNKNOWN_TYPE, VERSION,
    end_request, header, pairs,
};
use crate::gateway::{Head, Paths, Refusal, Rules};

/// Longest content of a record that is read as a whole.
const WHOLE_MAX: usize = 1 << 10;

/// Follows the requests on one connection, a step at a time.
///
/// The caller keeps what has arrived and not been used, and hands all of it to [`step`](Self::step) each time. How the
/// bytes are split up makes no difference to what is found in them.
#[derive(Debug)]
pub struct Records {
    /// Longest params of a request, in bytes.
    longest: usize,
    state: State,
    request: Option<Request>,
    /// Whether anything has come.
    has_begun: bool,
}

#[derive(Debug)]
enum State {
    /// Before a record's header.
    Header,
    /// Within a record whose content is read as it comes.
    Content {
        is: Content,
        left: usize,
        padding: u8,
    },
    /// Within one whose content is read when it is there.
    Whole {
        kind: u8,
        id: u16,
        length: usize,
        padding: u8,
    },
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Params,
    Stdin,
    /// Of no request here.
    Nothing,
}

/// The request that has been begun.
#[derive(Debug)]
struct Request {
    id: u16,
    keep: bool,
    at: At,
}

#[derive(Debug)]
enum At {
    Params(Vec<u8>),
    Stdin,
    /// All of it has come.
    End,
}

/// What the next bytes are. `used` bytes have been dealt with and are not handed in again.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The rest is not complete: come again with more.
    More,
    /// A request's variables are complete. Its body follows.
    Head {
        /// How many bytes.
        used: usize,
        /// What the variables say.
        head: Box<Head>,
        /// The request's id.
        id: u16,
        /// Whether the web server wants the connection kept after the reply.
        keep: bool,
    },
    /// Bytes of the body.
    Data {
        /// How many; at least one.
        used: usize,
    },
    /// The end of the body.
    End {
        /// How many bytes.
        used: usize,
    },
    /// The web server gives the request up.
    Abort {
        /// How many bytes.
        used: usize,
    },
    /// Something that is answered with a record.
    Answer {
        /// How many bytes.
        used: usize,
        /// The record.
        record: Vec<u8>,
    },
    /// Nothing that means anything by itself.
    Skip {
        /// How many bytes.
        used: usize,
    },
    /// The rest is refused, now and for ever.
    Refused(Refusal),
}

impl Records {
    /// For a new connection. `longest` bounds a request's variables.
    pub fn new(longest: usize) -> Self {
        Self {
            longest,
            state: State::Header,
            request: None,
            has_begun: false,
        }
    }

    /// The request that has been begun, if its reply has not ended: its id, and whether the connection is to be kept.
    pub fn request(&self) -> Option<(u16, bool)> {
        self.request.as_ref().map(|request| (request.id, request.keep))
    }

    /// The request's reply has ended: what still comes of it means nothing.
    pub fn finish(&mut self) {
        self.request = None;
        if let State::Content { is, .. } = &mut self.state {
            *is = Content::Nothing;
        }
    }

    /// Whether the connection is between requests, and between records.
    pub fn is_idle(&self) -> bool {
        self.request.is_none() && matches!(self.state, State::Header)
    }

    /// Tells what the bytes in `input` start with.
    ///
    /// `input` is all that has arrived since the last byte used. After [`Step::More`] it must start with the bytes it
    /// had then.
    pub fn step(&mut self, input: &[u8]) -> Step {
        self.try_step(input).unwrap_or_else(|refusal| {
            self.state = State::Refused(refusal.clone());
            Step::Refused(refusal)
        })
    }

    fn try_step(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        match &mut self.state {
            State::Refused(refusal) => Err(refusal.clone()),
            State::Header => self.header(input),
            State::Whole {
                kind,
                id,
                length,
                padding,
            } => {
                let (kind, id, length, padding) = (*kind, *id, *length, *padding);
                let Some(content) = input.get(..length) else {
                    return Ok(Step::More);
                };
                self.end_of_content(padding);
                self.whole(kind, id, content)
            }
            State::Content { left: 0, padding, .. } => {
                let padding = *padding;
                self.end_of_content(padding);
                // Without padding the next header is looked at at once.
                match padding {
                    0 => self.header(input),
                    _ => self.try_step(input),
                }
            }
            State::Content { is, left, .. } => {
                let used = (*left).min(input.len());
                if used == 0 {
                    return Ok(Step::More);
                }
                *left -= used;
                match (*is, &mut self.request) {
                    (Content::Params, Some(request)) => {
                        if let At::Params(params) = &mut request.at {
                            params.extend_from_slice(&input[..used]);
                        }
                        Ok(Step::Skip { used })
                    }
                    (Content::Stdin, Some(_)) => Ok(Step::Data { used }),
                    _ => Ok(Step::Skip { used }),
                }
            }
        }
    }

    fn end_of_content(&mut self, padding: u8) {
        self.state = match padding {
            0 => State::Header,
            padding => State::Content {
                is: Content::Nothing,
                left: usize::from(padding),
                padding: 0,
            },
        };
    }

    fn header(&mut self, input: &[u8]) -> Result<Step, Refusal> {
        match input.first() {
            None => return Ok(Step::More),
            Some(&VERSION) => {}
            Some(b'A'..=b'Z') if !self.has_begun => return Err(Refusal::Http("fastcgi")),
            Some(_) => return Err(Refusal::Record("its version is not 1")),
        }
        let Some((&[_, kind, id_high, id_low, high, low, padding, _], _)) =
            input.split_first_chunk::<HEADER>()
        else {
            return Ok(Step::More);
        };
        self.has_begun = true;
        let (id, length) = (
            u16::from_be_bytes([id_high, id_low]),
            usize::from(u16::from_be_bytes([high, low])),
        );
        let used = HEADER;
        match (kind, id) {
            (BEGIN_REQUEST | GET_VALUES, _) => {
                if length > WHOLE_MAX {
                    return Err(Refusal::Record("its content is too long"));
                }
                self.state = State::Whole {
                    kind,
                    id,
                    length,
                    padding,
                };
                return Ok(Step::Skip { used });
            }
            // 4.2: management records of types that are not known.
            (_, 0) if !matches!(kind, ABORT_REQUEST | PARAMS | STDIN | DATA) => {
                self.state = State::Content {
                    is: Content::Nothing,
                    left: length,
                    padding,
                };
                let mut record = header(UNKNOWN_TYPE, 0, 8).to_vec();
                record.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
                return Ok(Step::Answer { used, record });
            }
            (_, 0) => return Err(Refusal::Record("its request id is 0")),
            _ => {}
        }
        let (is, step) = match &mut self.request {
            Some(request) if request.id == id => request.of_this(kind, length, self.longest)?,
            // 3.3: what is of no active request is ignored.
            _ => (Content::Nothing, Step::Skip { used }),
        };
        self.state = State::Content {
            is,
            left: length,
            padding,
        };
        Ok(step)
    }

    /// A record whose content is there.
    fn whole(&mut self, kind: u8, id: u16, content: &[u8]) -> Result<Step, Refusal> {
        let used = content.len();
        if kind == GET_VALUES {
            let record = pairs::values(content)?;
            return Ok(Step::Answer { used, record });
        }
        let &[role_high, role_low, flags, ..] = content else {
            return Err(Refusal::Record("it begins a request and is too short"));
        };
        let refused = |ended| {
            let record = end_request(id, ended).to_vec();
            Ok(Step::Answer { used, record })
        };
        match (&self.request, u16::from_be_bytes([role_high, role_low])) {
            _ if content.len() != 8 || id == 0 => Err(Refusal::Record("it begins no request")),
            (Some(request), _) if request.id == id => Err(Refusal::Record("its request has begun already")),
            (Some(_), _) => refused(Ended::CannotMultiplex),
            (None, 1) => {
                self.request = Some(Request {
                    id,
                    keep: flags & 1 == 1,
                    at: At::Params(Vec::new()),
                });
                Ok(Step::Skip { used })
            }
            (None, _) => refused(Ended::UnknownRole),
        }
    }
}

impl Request {
    /// What a record of this request's is, by its header.
    fn of_this(&mut self, kind: u8, length: usize, longest: usize) -> Result<(Content, Step), Refusal> {
        let used = HEADER;
        let skip = Step::Skip { used };
        match (kind, &mut self.at) {
            (PARAMS, At::Params(params)) if length > 0 => {
                if params.len() + length > longest {
                    return Err(Refusal::TooLong);
                }
                params.reserve(length);
                Ok((Content::Params, skip))
            }
            (PARAMS, At::Params(params)) => {
                let rules = Rules {
                    paths: Paths::Unsplit,
                    body_ends: true,
                    last_counts: true,
                };
                let head = Head::new(pairs::block(params)?, rules)?;
                self.at = At::Stdin;
                let step = Step::Head {
                    used,
                    head: Box::new(head),
                    id: self.id,
                    keep: self.keep,
                };
                Ok((Content::Nothing, step))
            }
            (PARAMS, _) => Err(Refusal::Record("there are params after their end")),
            (STDIN, At::Params(_)) => Err(Refusal::Record("there is a body before the end of the params")),
            (STDIN, At::Stdin) if length > 0 => Ok((Content::Stdin, skip)),
            (STDIN, At::Stdin) => {
                self.at = At::End;
                Ok((Content::Nothing, Step::End { used }))
            }
            (STDIN, At::End) => Err(Refusal::Record("there is a body after its end")),
            (ABORT_REQUEST, _) => Ok((Content::Nothing, Step::Abort { used })),
            // Data is for filters; other types are none of the application's.
            _ => Ok((Content::Nothing, skip)),
        }
    }
}
