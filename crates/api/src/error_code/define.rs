//! What the catalogue of errors is made into.

macro_rules! error_codes {
    ($($variant:ident {
        code: $code:literal, status: $status:expr, exit: $exit:expr,
        title: $title:literal, hint: $hint:literal, why: $why:literal
    })*) => {
        /// A kind of error. Codes never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $title] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name, in kebab case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// The HTTP status; `None` if only the command line reports it.
            #[must_use]
            pub const fn status(self) -> Option<u16> {
                match self { $(Self::$variant => $status),* }
            }

            /// The exit code of the command line.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit),* }
            }

            /// One short sentence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }

            /// What to do, in one line.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint),* }
            }

            /// Why it happens and what helps: paragraphs of Markdown.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $why),* }
            }
        }
    };
}
