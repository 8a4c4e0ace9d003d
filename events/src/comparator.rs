use crate::proto;

/// When two results agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// Byte for byte.
    Exact,
    /// Numbers within tolerance; decimal text as signed.
    Numeric {
        /// Relative tolerance.
        relative: String,
        /// Absolute tolerance.
        absolute: String,
        /// Units in the last place.
        ulps: u64,
    },
    /// PNG within a distance; decimal text as signed, one of the two is empty.
    Image {
        /// Least peak signal-to-noise ratio in dB.
        psnr_db_min: String,
        /// Least structural similarity.
        ssim_min: String,
    },
    /// Lines, but for those that match.
    IgnoreLines(Vec<String>),
    /// Rows of numbers by their distance.
    Norm {
        /// Which distance.
        metric: Metric,
        /// Near: at most so far apart.
        accept: Band,
        /// Far: more than so far apart; nowhere below `accept`.
        reject: Band,
        /// How many far rows convict.
        test: SequentialTest,
    },
    /// Rows by what stands at their top.
    Topk {
        /// What a row holds.
        over: Over,
        /// How much of the top, 1 to 65,536.
        k: u32,
        /// Near: at least so many in common, at most `k`.
        accept_overlap: u32,
        /// Far: fewer than so many in common, at most `accept_overlap`.
        reject_overlap: u32,
        /// How many far rows convict.
        test: SequentialTest,
    },
    /// TOPLOC proofs against activations.
    Toploc {
        /// Activations that a proof holds, 1 to 4,096.
        topk: u32,
        /// Tokens that a proof is for.
        batch: u32,
        /// Near: no error above these.
        accept: ToplocErrors,
        /// Far: an error above these; nowhere below `accept`.
        reject: ToplocErrors,
        /// How many far proofs convict.
        test: SequentialTest,
    },
}

/// A distance of two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Root of the sum of squares.
    L2,
    /// Largest difference.
    Linf,
}

impl Metric {
    /// The word in terms and requests.
    pub const fn word(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Linf => "linf",
        }
    }

    /// Reads the word.
    pub fn read(word: &str) -> Option<Self> {
        [Self::L2, Self::Linf].into_iter().find(|metric| metric.word() == word)
    }
}

/// What a row holds whose top is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Scores; the top are the indices of the largest.
    Logits,
    /// Ids, best first.
    Ids,
}

impl Over {
    /// The word in terms and requests.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Ids => "ids",
        }
    }

    /// Reads the word.
    pub fn read(word: &str) -> Option<Self> {
        [Self::Logits, Self::Ids].into_iter().find(|over| over.word() == word)
    }
}

/// A distance d is in the band of two rows a and b when d ≤ max(absolute, relative × max(‖a‖, ‖b‖)). Decimal text as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// Share of the longer row's norm.
    pub relative: String,
    /// In units of the numbers.
    pub absolute: String,
}

/// Errors of a TOPLOC proof; larger is worse. Decimal text as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToplocErrors {
    /// Of the top activations, how many have another exponent.
    pub exp_mismatches: u32,
    /// Mean difference of the mantissas of the others, in units of bfloat16.
    pub mant_err_mean: String,
    /// Their median.
    pub mant_err_median: String,
}

/// A sequential probability ratio test (Wald 1945) over the samples of one result: decimal text as signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequentialTest {
    /// Chance that an honest result is called invalid.
    pub alpha: String,
    /// Chance that a false one is called valid.
    pub beta: String,
    /// Share of far samples that an honest result has at most.
    pub honest_rate: String,
    /// Share of far samples that a false one has at least.
    pub cheat_rate: String,
}

/// Which field is wrong, and how.
pub type ComparatorProblem = (&'static str, String);

impl SequentialTest {
    /// `0.001` as 1,000,000: plain decimal digits, at most nine before and after the point.
    pub fn billionths(text: &str) -> Option<u64> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let (whole, parts): (u64, u64) = (whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?);
        whole.checked_mul(Self::ONE)?.checked_add(parts)
    }

    /// One, in the units of [`SequentialTest::parts`].
    pub const ONE: u64 = 1_000_000_000;

    /// `alpha`, `beta`, `honest_rate`, `cheat_rate` in billionths.
    ///
    /// # Errors
    /// Names the field: all are between 0 and 1, `alpha` and `beta` below one half, `honest_rate` below `cheat_rate`.
    pub fn parts(&self) -> Result<[u64; 4], ComparatorProblem> {
        let read = |field, text: &str| match Self::billionths(text) {
            Some(parts) if parts > 0 && parts < Self::ONE => Ok(parts),
            _ => Err((
                field,
                format!("a decimal between 0 and 1 with at most nine digits after the point, not {:?}", short(text)),
            )),
        };
        let alpha = read("test.alpha", &self.alpha)?;
        let beta = read("test.beta", &self.beta)?;
        let honest_rate = read("test.honest_rate", &self.honest_rate)?;
        let cheat_rate = read("test.cheat_rate", &self.cheat_rate)?;
        for (field, parts) in [("test.alpha", alpha), ("test.beta", beta)] {
            if parts >= Self::ONE / 2 {
                return Err((field, "must be below one half".into()));
            }
        }
        if honest_rate >= cheat_rate {
            return Err(("test.cheat_rate", "must be above honest_rate".into()));
        }
        Ok([alpha, beta, honest_rate, cheat_rate])
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A finite decimal that is not negative; nothing said is zero.
fn decimal(field: &'static str, text: &str) -> Result<f64, ComparatorProblem> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    match value {
        _ if text.is_empty() => Ok(0.0),
        Some(value) if text.len() <= 32 => Ok(value),
        _ => Err((field, format!("a decimal number, not negative, not {:?}", short(text)))),
    }
}

impl Comparator {
    /// Most that a row's top may be asked for.
    pub const TOPK_MAX: u32 = 65_536;
    /// Most activations in a TOPLOC proof.
    pub const TOPLOC_MAX: u32 = 4_096;
    /// Most tokens that a TOPLOC proof is for.
    pub const TOPLOC_BATCH_MAX: u32 = 1 << 20;

    /// Whether the fields make sense together; the field is named without the comparator's own path.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn check(&self) -> Result<(), ComparatorProblem> {
        let within = |field, value: u32, least: u32, most: u32| match value {
            _ if (least..=most).contains(&value) => Ok(()),
            _ => Err((field, format!("between {least} and {most}, not {value}"))),
        };
        let below = |field, accept: &str, reject: &str| {
            let (least, value) = (decimal(field, accept)?, decimal(field, reject)?);
            if value < least { Err((field, "must not be below the accept one".to_owned())) } else { Ok(()) }
        };
        match self {
            Self::Exact => Ok(()),
            Self::Numeric { relative, absolute, .. } => {
                decimal("relative", relative)?;
                decimal("absolute", absolute).map(drop)
            }
            Self::Image { psnr_db_min, ssim_min } => {
                decimal("psnr_db_min", psnr_db_min)?;
                decimal("ssim_min", ssim_min)?;
                match psnr_db_min.is_empty() == ssim_min.is_empty() {
                    true => Err(("", "one of psnr_db_min and ssim_min is needed".into())),
                    false => Ok(()),
                }
            }
            Self::IgnoreLines(patterns) => {
                match patterns.len() > 32 || patterns.iter().any(|pattern| pattern.len() > 512) {
                    true => Err(("patterns", "at most 32 of at most 512 bytes".into())),
                    false => Ok(()),
                }
            }
            Self::Norm { accept, reject, test, .. } => {
                decimal("accept.relative", &accept.relative)?;
                decimal("accept.absolute", &accept.absolute)?;
                below("reject.relative", &accept.relative, &reject.relative)?;
                below("reject.absolute", &accept.absolute, &reject.absolute)?;
                test.parts().map(drop)
            }
            Self::Topk { k, accept_overlap, reject_overlap, test, .. } => {
                within("k", *k, 1, Self::TOPK_MAX)?;
                within("accept_overlap", *accept_overlap, 1, *k)?;
                within("reject_overlap", *reject_overlap, 1, *accept_overlap)?;
                test.parts().map(drop)
            }
            Self::Toploc { topk, batch, accept, reject, test } => {
                within("topk", *topk, 1, Self::TOPLOC_MAX)?;
                within("batch", *batch, 1, Self::TOPLOC_BATCH_MAX)?;
                within("accept.exp_mismatches", accept.exp_mismatches, 0, *topk)?;
                within("reject.exp_mismatches", reject.exp_mismatches, accept.exp_mismatches, *topk)?;
                decimal("accept.mant_err_mean", &accept.mant_err_mean)?;
                decimal("accept.mant_err_median", &accept.mant_err_median)?;
                below("reject.mant_err_mean", &accept.mant_err_mean, &reject.mant_err_mean)?;
                below("reject.mant_err_median", &accept.mant_err_median, &reject.mant_err_median)?;
                test.parts().map(drop)
            }
        }
    }

    pub(crate) fn read(message: proto::Comparator) -> Result<Self, ComparatorProblem> {
        use proto::comparator::Kind;
        let test = |test: Option<proto::SequentialTest>| {
            let proto::SequentialTest { alpha, beta, honest_rate, cheat_rate } = test.unwrap_or_default();
            SequentialTest { alpha, beta, honest_rate, cheat_rate }
        };
        let (kind, comparator) = match message.kind {
            None | Some(Kind::Exact(_)) => return Ok(Self::Exact),
            Some(Kind::Numeric(it)) => {
                ("numeric", Self::Numeric { relative: it.relative, absolute: it.absolute, ulps: it.ulps })
            }
            Some(Kind::Image(it)) => ("image", Self::Image { psnr_db_min: it.psnr_db_min, ssim_min: it.ssim_min }),
            Some(Kind::IgnoreLines(it)) => ("ignore_lines", Self::IgnoreLines(it.patterns)),
            Some(Kind::Norm(it)) => {
                let metric = Metric::read(&it.metric);
                let metric = metric
                    .ok_or_else(|| ("comparator.norm.metric", format!("l2 or linf, not {:?}", short(&it.metric))))?;
                let accept = Band { relative: it.accept_relative, absolute: it.accept_absolute };
                let reject = Band { relative: it.reject_relative, absolute: it.reject_absolute };
                ("norm", Self::Norm { metric, accept, reject, test: test(it.test) })
            }
            Some(Kind::Topk(it)) => {
                let over = Over::read(&it.over);
                let over =
                    over.ok_or_else(|| ("comparator.topk.over", format!("logits or ids, not {:?}", short(&it.over))))?;
                let proto::TopkComparator { k, accept_overlap, reject_overlap, .. } = it;
                ("topk", Self::Topk { over, k, accept_overlap, reject_overlap, test: test(it.test) })
            }
            Some(Kind::Toploc(it)) => {
                let accept = ToplocErrors {
                    exp_mismatches: it.accept_exp_mismatches,
                    mant_err_mean: it.accept_mant_err_mean,
                    mant_err_median: it.accept_mant_err_median,
                };
                let reject = ToplocErrors {
                    exp_mismatches: it.reject_exp_mismatches,
                    mant_err_mean: it.reject_mant_err_mean,
                    mant_err_median: it.reject_mant_err_median,
                };
                ("toploc", Self::Toploc { topk: it.topk, batch: it.batch, accept, reject, test: test(it.test) })
            }
        };
        comparator.check().map_err(|(field, problem)| (FIELDS.find(kind, field), problem))?;
        Ok(comparator)
    }
}

/// The full paths of fields in the schema.
struct Paths(&'static [&'static str]);

const FIELDS: Paths = Paths(&[
    "comparator.numeric.relative",
    "comparator.numeric.absolute",
    "comparator.image.psnr_db_min",
    "comparator.image.ssim_min",
    "comparator.ignore_lines.patterns",
    "comparator.norm.accept_relative",
    "comparator.norm.accept_absolute",
    "comparator.norm.reject_relative",
    "comparator.norm.reject_absolute",
    "comparator.norm.test.alpha",
    "comparator.norm.test.beta",
    "comparator.norm.test.honest_rate",
    "comparator.norm.test.cheat_rate",
    "comparator.topk.k",
    "comparator.topk.accept_overlap",
    "comparator.topk.reject_overlap",
    "comparator.topk.test.alpha",
    "comparator.topk.test.beta",
    "comparator.topk.test.honest_rate",
    "comparator.topk.test.cheat_rate",
    "comparator.toploc.topk",
    "comparator.toploc.batch",
    "comparator.toploc.accept_exp_mismatches",
    "comparator.toploc.accept_mant_err_mean",
    "comparator.toploc.accept_mant_err_median",
    "comparator.toploc.reject_exp_mismatches",
    "comparator.toploc.reject_mant_err_mean",
    "comparator.toploc.reject_mant_err_median",
    "comparator.toploc.test.alpha",
    "comparator.toploc.test.beta",
    "comparator.toploc.test.honest_rate",
    "comparator.toploc.test.cheat_rate",
    "comparator.image",
]);

impl Paths {
    /// The path of a comparator's field; the whole comparator where the field has none of its own.
    fn find(&self, kind: &str, field: &str) -> &'static str {
        let flat = field.replacen("accept.", "accept_", 1).replacen("reject.", "reject_", 1);
        let path = if flat.is_empty() { format!("comparator.{kind}") } else { format!("comparator.{kind}.{flat}") };
        self.0.iter().copied().find(|known| *known == path).unwrap_or("comparator")
    }
}
