//! Values for statements, which know their type in PostgreSQL: a statement that is not prepared by name has to say it.

use std::net::IpAddr;

use chrono::NaiveDate;
use connlog_model::clock::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use crate::xid::Xid8;

/// A value for a statement.
pub(crate) trait Argument: ToSql + Sync {
    /// Its type in PostgreSQL.
    fn postgres_type(&self) -> Type;

    /// The value for the driver.
    fn as_sql(&self) -> &(dyn ToSql + Sync);
}

impl<T: ToSql + Sync + Typed> Argument for T {
    fn postgres_type(&self) -> Type {
        T::TYPE
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        self
    }
}

/// A type of Rust that has one type in PostgreSQL.
pub(crate) trait Typed {
    const TYPE: Type;
    /// Of an array of it.
    const ARRAY: Type;
}

macro_rules! typed {
    ($($rust:ty => $one:ident, $many:ident;)*) => {$(
        impl Typed for $rust {
            const TYPE: Type = Type::$one;
            const ARRAY: Type = Type::$many;
        }
    )*};
}

typed! {
    Uuid => UUID, UUID_ARRAY;
    str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    [u8] => BYTEA, BYTEA_ARRAY;
    Timestamp => TIMESTAMPTZ, TIMESTAMPTZ_ARRAY;
    NaiveDate => DATE, DATE_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    i16 => INT2, INT2_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    IpAddr => INET, INET_ARRAY;
    Xid8 => XID8, XID8_ARRAY;
}

impl<T: Typed> Typed for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

impl<T: Typed + ?Sized> Typed for &T {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

macro_rules! arrays {
    ($($element:ty),* $(,)?) => {$(
        impl Typed for [$element] {
            const TYPE: Type = <$element as Typed>::ARRAY;
            const ARRAY: Type = <$element as Typed>::ARRAY;
        }

        impl Typed for Vec<$element> {
            const TYPE: Type = <$element as Typed>::ARRAY;
            const ARRAY: Type = <$element as Typed>::ARRAY;
        }
    )*};
}

impl Typed for Vec<u8> {
    const TYPE: Type = Type::BYTEA;
    const ARRAY: Type = Type::BYTEA_ARRAY;
}

arrays! {
    Uuid, Option<Uuid>, &str, Option<&str>, String, Option<String>, Vec<u8>, Option<Vec<u8>>, &[u8], Timestamp, Option<Timestamp>, NaiveDate, bool,
    Option<bool>, i16, Option<i16>, i32, Option<i32>, i64, Option<i64>, Option<IpAddr>,
}
