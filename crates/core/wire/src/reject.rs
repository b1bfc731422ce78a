//! Why a message was refused.

use catalog::MachineId;

/// Stable codes of refusals; they stand in dead letters, answers and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is said by its message")]
pub enum ErrorCode {
    NotJson,
    NotCsv,
    NotAnObject,
    MissingField,
    WrongType,
    DuplicateKey,
    NotFinite,
    OutOfRange,
    BadMachineId,
    BadTime,
    TooOld,
    InFuture,
    LocalTime,
    UnknownClass,
    ClassChanged,
    UnknownValue,
    TooDeep,
    TooLong,
    Empty,
    BadBatch,
    BadSchema,
    DecoderPanic,
}

impl ErrorCode {
    /// As it is written: `not_json`, `out_of_range`.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::NotJson => "not_json",
            ErrorCode::NotCsv => "not_csv",
            ErrorCode::NotAnObject => "not_an_object",
            ErrorCode::MissingField => "missing_field",
            ErrorCode::WrongType => "wrong_type",
            ErrorCode::DuplicateKey => "duplicate_key",
            ErrorCode::NotFinite => "not_finite",
            ErrorCode::OutOfRange => "out_of_range",
            ErrorCode::BadMachineId => "bad_machine_id",
            ErrorCode::BadTime => "bad_time",
            ErrorCode::TooOld => "too_old",
            ErrorCode::InFuture => "in_future",
            ErrorCode::LocalTime => "local_time",
            ErrorCode::UnknownClass => "unknown_class",
            ErrorCode::ClassChanged => "class_changed",
            ErrorCode::UnknownValue => "unknown_value",
            ErrorCode::TooDeep => "too_deep",
            ErrorCode::TooLong => "too_long",
            ErrorCode::Empty => "empty",
            ErrorCode::BadBatch => "bad_batch",
            ErrorCode::BadSchema => "bad_schema",
            ErrorCode::DecoderPanic => "decoder_panic",
        }
    }
}

/// One refused message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Its place in the value as received, from 0.
    pub index: u32,
    /// Why.
    pub code: ErrorCode,
    /// Why, in a sentence: where, what is allowed.
    pub error: String,
    /// Its machine, where that could be read and is a valid id.
    pub machine: Option<MachineId>,
    /// The channel that the refusal names, by id.
    pub channel: Option<String>,
    /// The message as received; above 256 KiB its first 4 KiB.
    pub payload: Vec<u8>,
}
