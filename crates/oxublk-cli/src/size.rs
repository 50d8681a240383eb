//! Sizes as people write them: `16M`, `1GiB`, `512`. Units are binary, as with `qemu-img`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What [`Size`] accepts, for messages and help.
pub const ACCEPTED: &str = "a number of bytes, or a number with K, M, G, T or P \
                            (powers of 1024; KiB or KB mean the same): 4096, 16M, 1GiB";

/// The largest size: file offsets of the kernel are signed.
const MAX_BYTES: u64 = i64::MAX.unsigned_abs();

const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A number of bytes.
///
/// ```
/// use oxublk_cli::size::Size;
/// assert_eq!("16M".parse(), Ok(Size(16 << 20)));
/// assert_eq!(Size(16 << 20).to_string(), "16M");
/// assert_eq!(Size(16 << 20).human(), "16 MiB");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// Why a text is not a [`Size`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseSizeError {
    /// It is not a number with a unit.
    Syntax,
    /// It is more than the kernel can address.
    TooLarge,
}

impl fmt::Display for ParseSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax => write!(f, "not a size; a size is {ACCEPTED}"),
            Self::TooLarge => f.write_str("too large; the kernel addresses less than 8192P"),
        }
    }
}

impl std::error::Error for ParseSizeError {}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(ParseSizeError::Syntax),
        };
        if number.is_empty() {
            return Err(ParseSizeError::Syntax);
        }
        // Only digits are left, so the one thing that can go wrong is the range.
        let number: u64 = number.parse().map_err(|_| ParseSizeError::TooLarge)?;
        let bytes = number
            .checked_mul(1 << shift)
            .ok_or(ParseSizeError::TooLarge)?;
        if bytes > MAX_BYTES {
            Err(ParseSizeError::TooLarge)
        } else {
            Ok(Self(bytes))
        }
    }
}

/// The shortest exact form that [`Size`] reads again: `16M`, `1536`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let step = (bytes.trailing_zeros() / 10).min(5);
        if bytes == 0 || step == 0 {
            return bytes.fmt(f);
        }
        let unit = UNITS
            .get(step as usize)
            .and_then(|unit| unit.chars().next())
            .unwrap_or('B');
        write!(f, "{}{unit}", bytes >> (10 * step))
    }
}

impl Size {
    /// For reading: `16 MiB`, `1.5 GiB`, `512 bytes`. Rounded to one decimal where it must be.
    #[must_use]
    pub fn human(self) -> String {
        let Self(bytes) = self;
        let step = (bytes.max(1).ilog2() / 10).min(5);
        let unit = UNITS.get(step as usize).unwrap_or(&"bytes");
        let whole = bytes >> (10 * step);
        let rest = bytes - (whole << (10 * step));
        let tenths = (u128::from(rest) * 10) >> (10 * step);
        if tenths == 0 {
            format!("{whole} {unit}")
        } else {
            format!("{whole}.{tenths} {unit}")
        }
    }

    /// Both forms: `16777216 bytes, 16 MiB`.
    #[must_use]
    pub fn both(self) -> String {
        if self.0 < 1024 {
            self.human()
        } else {
            format!("{} bytes, {}", self.0, self.human())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_binary_with_or_without_suffix() {
        for text in [
            "16M",
            "16m",
            "16MB",
            "16MiB",
            "16mib",
            "16777216",
            "16384K",
            "16777216B",
        ] {
            assert_eq!(text.parse(), Ok(Size(16 << 20)), "{text}");
        }
        assert_eq!("1TiB".parse(), Ok(Size(1 << 40)));
        assert_eq!("2P".parse(), Ok(Size(2 << 50)));
        assert_eq!("0".parse(), Ok(Size(0)));
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "", "M", "16 M", "-1", "+1", "1.5G", "1_000", "0x10", "16Mi", "16X", "16MM", "１",
        ] {
            assert_eq!(
                text.parse::<Size>(),
                Err(ParseSizeError::Syntax),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_limit_is_the_largest_file_offset() {
        assert_eq!("9223372036854775807".parse(), Ok(Size(MAX_BYTES)));
        for text in [
            "9223372036854775808",
            "8192P",
            "18446744073709551616",
            "99999999999999999999P",
        ] {
            assert_eq!(
                text.parse::<Size>(),
                Err(ParseSizeError::TooLarge),
                "{text}"
            );
        }
    }

    #[test]
    fn human_forms() {
        assert_eq!(Size(0).human(), "0 bytes");
        assert_eq!(Size(512).human(), "512 bytes");
        assert_eq!(Size(1536).human(), "1.5 KiB");
        assert_eq!(Size(1 << 40).human(), "1 TiB");
        assert_eq!(Size(16 << 20).both(), "16777216 bytes, 16 MiB");
        assert_eq!(Size(u64::MAX).human(), "16383.9 PiB");
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_identity(bytes in 0..=MAX_BYTES) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn round_sizes_print_short(number in 1u64..1024, step in 1u32..=5) {
            let text = Size(number << (10 * step)).to_string();
            prop_assert_eq!(&text, &format!("{number}{}", &"_KMGTP"[step as usize..=step as usize]));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn no_number_panics(number in any::<u64>(), unit in "[kKmMgGtTpPbBiI]{0,3}") {
            let _ = format!("{number}{unit}").parse::<Size>();
            let _ = Size(number).human();
        }
    }
}
