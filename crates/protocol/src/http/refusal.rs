//! Why a request is refused, and the status its peer gets.

/// Why a request is refused. Nothing after it on its connection can be trusted: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// What comes begins as no HTTP request does, but as those of another protocol do.
    #[error("this looks like {0}, and the port speaks HTTP")]
    Wire(&'static str),
    /// A line ends in LF without CR (RFC 9112 2.2 lets a server take it; peers that disagree make smuggling).
    #[error("a line ends without CR")]
    BareLf,
    /// A NUL, a CR inside a line or another control character.
    #[error("a control character in the request line or a header field")]
    Control,
    /// Not `method SP target SP version`, or empty lines before it.
    #[error("the request line is malformed")]
    RequestLine,
    /// The method is not a token.
    #[error("the method is malformed")]
    Method,
    /// CONNECT, or a method longer than 32 bytes.
    #[error("the method is not implemented")]
    MethodUnknown,
    /// The target is none of origin-form, absolute-form or (OPTIONS only) asterisk-form.
    #[error("the request target is malformed")]
    Target,
    /// The request line is longer than allowed.
    #[error("the request line is too long")]
    TargetTooLong,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("the HTTP version is not supported")]
    Version,
    /// Request line and fields together are longer than allowed.
    #[error("the header fields are too long")]
    HeadTooLong,
    /// More fields than allowed.
    #[error("too many header fields")]
    TooManyFields,
    /// A field line that continues the one before (RFC 9112 5.2).
    #[error("a folded header field")]
    Folded,
    /// A field without colon, with an empty name, or a name that is not a token (RFC 9112 5.1).
    #[error("a header field's name is malformed")]
    FieldName,
    /// HTTP/1.1 without Host (RFC 9112 3.2).
    #[error("the Host header field is missing")]
    HostMissing,
    /// More than one Host.
    #[error("the Host header field is repeated")]
    HostRepeated,
    /// Host is not `host [":" port]`.
    #[error("the Host header field is malformed")]
    Host,
    /// The authority of an absolute-form target is not what Host says.
    #[error("the request target and the Host header field disagree")]
    HostDiffers,
    /// Content-Length is not one decimal number.
    #[error("the Content-Length header field is malformed")]
    Length,
    /// More than one Content-Length, even if they agree.
    #[error("the Content-Length header field is repeated")]
    LengthRepeated,
    /// Content-Length is a number nobody can send.
    #[error("the request body is too long")]
    LengthTooLong,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 6.3).
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Transfer-Encoding is repeated, does not end in `chunked`, or comes with HTTP/1.0.
    #[error("the Transfer-Encoding header field is malformed")]
    Coding,
    /// A transfer coding other than `chunked`.
    #[error("the transfer coding is not implemented")]
    CodingUnknown,
    /// With HTTP/2, a field that is about a connection (RFC 9113 8.2.2).
    #[error("a header field that HTTP/2 has no place for")]
    ConnectionField,
    /// More than one Content-Type.
    #[error("the Content-Type header field is repeated")]
    TypeRepeated,
    /// An expectation other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// A chunk's size line is malformed or too long.
    #[error("a chunk's size is malformed")]
    ChunkSize,
    /// A chunk's data is not followed by CRLF.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A trailer field that would change framing or routing (RFC 9110 6.5.1).
    #[error("a forbidden trailer field")]
    Trailer,
}

impl Refusal {
    /// The status the peer gets.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Wire(_)
            | Refusal::BareLf
            | Refusal::Control
            | Refusal::RequestLine
            | Refusal::Method
            | Refusal::Target
            | Refusal::Folded
            | Refusal::FieldName
            | Refusal::HostMissing
            | Refusal::HostRepeated
            | Refusal::Host
            | Refusal::HostDiffers
            | Refusal::Length
            | Refusal::LengthRepeated
            | Refusal::LengthAndCoding
            | Refusal::Coding
            | Refusal::ConnectionField
            | Refusal::TypeRepeated
            | Refusal::ChunkSize
            | Refusal::ChunkEnd
            | Refusal::Trailer => 400,
            Refusal::LengthTooLong => 413,
            Refusal::TargetTooLong => 414,
            Refusal::Expectation => 417,
            Refusal::HeadTooLong | Refusal::TooManyFields => 431,
            Refusal::MethodUnknown | Refusal::CodingUnknown => 501,
            Refusal::Version => 505,
        }
    }
}
