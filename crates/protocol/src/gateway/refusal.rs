//! Why a request of a web server's is refused, and the status it gets.

use crate::environ::Broken;

/// Why a request is refused. Nothing after it on its connection can be trusted: the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// An HTTP request.
    #[error(
        "this is an HTTP request, and the port speaks {0}: let the web server in front speak {0}, or listen with http"
    )]
    Http(&'static str),
    /// A uwsgi packet that is not for a WSGI app.
    #[error("the uwsgi modifier {0} is not served; 0 and 30 are")]
    Modifier(u8),
    /// What is there is no netstring.
    #[error("the netstring is malformed")]
    Netstring,
    /// SCGI headers that are not as they have to be.
    #[error("{0}")]
    Headers(&'static str),
    /// A FastCGI record that is not as it has to be.
    #[error("a FastCGI record cannot be read: {0}")]
    Record(&'static str),
    /// FastCGI params with a name or value that is longer than what is left.
    #[error("a name or value runs past the FastCGI params")]
    Params,
    /// A key or value is longer than what is left.
    #[error("a {0}")]
    Vars(#[from] Broken),
    /// The variables together are longer than allowed.
    #[error("the variables are too long")]
    TooLong,
    /// More variables than allowed.
    #[error("too many variables")]
    TooMany,
    /// A name that is empty, or has other bytes than printable ASCII.
    #[error("a variable's name is malformed")]
    Name,
    /// A control character in a value.
    #[error("a control character in {0}")]
    Control(String),
    /// A variable that may be there once only.
    #[error("{0} is repeated")]
    Repeated(String),
    /// There is no REQUEST_METHOD, or it is no token.
    #[error("REQUEST_METHOD is missing or malformed")]
    Method,
    /// CONNECT, or a method longer than 32 bytes.
    #[error("the method is not implemented")]
    MethodUnknown,
    /// A path that does not begin with a slash, or none at all.
    #[error("PATH_INFO does not begin with a slash")]
    Path,
    /// HTTP_HOST is not `host [":" port]`.
    #[error("HTTP_HOST is malformed")]
    Host,
    /// CONTENT_LENGTH is not one decimal number.
    #[error("CONTENT_LENGTH is malformed")]
    Length,
    /// CONTENT_LENGTH is a number nobody can send.
    #[error("the request body is too long")]
    LengthTooLong,
}

impl Refusal {
    /// The status the peer gets.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Http(_)
            | Refusal::Modifier(_)
            | Refusal::Netstring
            | Refusal::Headers(_)
            | Refusal::Record(_)
            | Refusal::Params
            | Refusal::Vars(_)
            | Refusal::Name
            | Refusal::Control(_)
            | Refusal::Repeated(_)
            | Refusal::Method
            | Refusal::Path
            | Refusal::Host
            | Refusal::Length => 400,
            Refusal::LengthTooLong => 413,
            Refusal::TooLong | Refusal::TooMany => 431,
            Refusal::MethodUnknown => 501,
        }
    }
}
