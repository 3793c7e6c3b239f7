//! Errors of commands, and why connections and subscriptions are ended, by the numbers and words of the Centrifuge protocol.

/// What is wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Error {
    /// A failure of ours, perhaps not for long.
    Internal = 100,
    /// No channel has such a name.
    UnknownChannel = 102,
    /// Not allowed.
    PermissionDenied = 103,
    /// There is no such method.
    MethodNotFound = 104,
    /// The client is on the channel already.
    AlreadySubscribed = 105,
    /// More than is allowed.
    LimitExceeded = 106,
    /// Not of the form that it has to be.
    BadRequest = 107,
    /// Not with these rules.
    NotAvailable = 108,
    /// The client is to bring another token.
    TokenExpired = 109,
    /// Too many at once, perhaps not for long.
    TooManyRequests = 111,
    /// What is asked for is not all there.
    UnrecoverablePosition = 112,
    /// What keeps histories is away, but not for long. To clients it is [`Error::Internal`].
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

    /// Whether the same may be tried again.
    pub fn is_temporary(self) -> bool {
        matches!(self, Error::Internal | Error::TooManyRequests | Error::Unavailable)
    }

    /// The status for a backend that wants errors as statuses.
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

/// Why a connection is ended: a close code, and whether the client may come back. 3500 to 3999 and 4500 to 4999 are final.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Disconnect {
    /// Its token expired, and it brought no other.
    Expired = 3005,
    /// What follows on a channel that it was put on cannot be told without a hole.
    Insufficient = 3010,
    /// It did not answer a ping.
    NoPong = 3012,
    /// Its token is not valid.
    InvalidToken = 3500,
    /// What it sent is not of the protocol.
    BadRequest = 3501,
    /// It did not connect in time.
    Stale = 3502,
    /// The backend wants it.
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

/// Why a subscription is ended. A client subscribes again after 2500 and beyond.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Unsubscribe {
    /// The backend wants it.
    Server = 2000,
    /// What follows cannot be told without a hole.
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
