//! Errors of commands, and the reasons for ending connections and subscriptions, with the numbers and words of the
//! Centrifuge protocol.

/// The error of a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Error {
    /// A failure on our side, perhaps temporary.
    Internal = 100,
    /// There is no channel with this name.
    UnknownChannel = 102,
    /// Not allowed.
    PermissionDenied = 103,
    /// There is no such method.
    MethodNotFound = 104,
    /// Over a limit.
    AlreadySubscribed = 105,
    /// More than is allowed.
    LimitExceeded = 106,
    /// Malformed.
    BadRequest = 107,
    /// The rules do not offer it.
    NotAvailable = 108,
    /// The client must bring another token.
    TokenExpired = 109,
    /// Too many at once, perhaps only for a moment.
    TooManyRequests = 111,
    /// Part of what was asked for is gone.
    UnrecoverablePosition = 112,
    /// The keeper of histories is away for a moment. Clients see [`Error::Internal`].
    Unavailable = 503,
}

impl Error {
    /// Its number.
    pub fn code(self) -> u16 {
        if self == Error::Unavailable { Error::Internal as u16 } else { self as u16 }
    }

    /// Its words.
    pub fn message(self) -> &'static str {
        match self {
            Error::Internal | Error::Unavailable => "internal server error",
            Error::UnknownChannel => "unknown channel",
            Error::PermissionDenied => "permission denied",
            Error::MethodNotFound => "method not found",
            Error::AlreadySubscribed => "already subscribed",
            Error::LimitExceeded => "limit exceeded",
            Error::BadRequest => "bad request",
            Error::NotAvailable => "not available",
            Error::TokenExpired => "token expired",
            Error::TooManyRequests => "too many requests",
            Error::UnrecoverablePosition => "unrecoverable position",
        }
    }

    /// Whether a retry may succeed.
    pub fn is_temporary(self) -> bool {
        matches!(self, Error::Internal | Error::TooManyRequests | Error::Unavailable)
    }

    /// The HTTP status, for a backend that wants errors as statuses.
    pub fn status(self) -> u16 {
        match self {
            Error::BadRequest | Error::AlreadySubscribed | Error::TokenExpired => 400,
            Error::PermissionDenied => 403,
            Error::UnknownChannel | Error::MethodNotFound => 404,
            Error::UnrecoverablePosition => 416,
            Error::TooManyRequests | Error::LimitExceeded => 429,
            Error::NotAvailable => 501,
            Error::Internal => 500,
            Error::Unavailable => 503,
        }
    }
}

/// Why a connection ends: a close code that also decides whether the client may come back. 3500 to 3999 and 4500 to
/// 4999 are final.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Disconnect {
    /// Its token expired, and the client brought no other.
    Expired = 3005,
    /// A channel that the server put it on cannot continue without a gap.
    Insufficient = 3010,
    /// The client did not answer a ping.
    NoPong = 3012,
    /// Its token is invalid.
    InvalidToken = 3500,
    /// Its message violates the protocol.
    BadRequest = 3501,
    /// The client did not connect in time.
    Stale = 3502,
    /// The backend demands it.
    Force = 3503,
}

impl Disconnect {
    /// Its number.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Its words.
    pub fn reason(self) -> &'static str {
        match self {
            Disconnect::Expired => "connection expired",
            Disconnect::Insufficient => "insufficient state",
            Disconnect::NoPong => "no pong",
            Disconnect::InvalidToken => "invalid token",
            Disconnect::BadRequest => "bad request",
            Disconnect::Stale => "stale",
            Disconnect::Force => "force disconnect",
        }
    }
}

/// Why a subscription ends. A client subscribes again for 2500 and above.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Unsubscribe {
    /// The backend demands it.
    Server = 2000,
    /// The channel cannot continue without a gap.
    Insufficient = 2500,
    /// Its token expired, and the client brought no other.
    Expired = 2501,
}

impl Unsubscribe {
    /// Its number.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Its words.
    pub fn reason(self) -> &'static str {
        match self {
            Unsubscribe::Server => "server unsubscribe",
            Unsubscribe::Insufficient => "insufficient state",
            Unsubscribe::Expired => "subscription expired",
        }
    }
}
