use tribunal_events::{Band, Comparator, Metric, Over, SequentialTest, ToplocErrors};

use super::{At, Fields, Read, short, wrong};
use crate::{BadRequest, json::Json};

pub(super) fn comparator(at: &At<'_>) -> Read<Comparator> {
    let mut fields = Fields::of(at)?;
    let kind = fields.required("kind")?;
    let comparator = match kind.text()? {
        "exact" => Comparator::Exact,
        "numeric" => {
            let (relative, absolute) = (decimal(&mut fields, "relative")?, decimal(&mut fields, "absolute")?);
            let ulps = fields.optional("ulps").map_or(Ok(0), |at| at.u64(0))?;
            Comparator::Numeric { relative, absolute, ulps }
        }
        "image" => {
            let (psnr_db_min, ssim_min) = (decimal(&mut fields, "psnr_db_min")?, decimal(&mut fields, "ssim_min")?);
            Comparator::Image { psnr_db_min, ssim_min }
        }
        "ignore_lines" => {
            let list = fields.required("patterns")?;
            let mut patterns = Vec::new();
            for pattern in list.list(32)? {
                let text = pattern.text()?;
                if text.len() > 512 {
                    return wrong(&pattern.path, "at most 512 bytes");
                }
                if let Err(problem) = crate::comparator::pattern(text) {
                    return wrong(&pattern.path, problem);
                }
                patterns.push(text.to_owned());
            }
            Comparator::IgnoreLines(patterns)
        }
        "norm" => {
            let metric = fields.required("metric")?;
            let word = metric.text()?;
            let Some(read) = Metric::read(word) else {
                return wrong(&metric.path, format!("l2 or linf, not {:?}", short(word)));
            };
            let (accept, reject) = (band(&fields.required("accept")?)?, band(&fields.required("reject")?)?);
            Comparator::Norm { metric: read, accept, reject, test: test(&fields.required("test")?)? }
        }
        "topk" => {
            let over = fields.required("over")?;
            let word = over.text()?;
            let Some(read) = Over::read(word) else {
                return wrong(&over.path, format!("logits or ids, not {:?}", short(word)));
            };
            let [k, accept_overlap, reject_overlap] =
                ["k", "accept_overlap", "reject_overlap"].map(|name| count(&mut fields, name));
            let test = test(&fields.required("test")?)?;
            Comparator::Topk {
                over: read,
                k: k?,
                accept_overlap: accept_overlap?,
                reject_overlap: reject_overlap?,
                test,
            }
        }
        "toploc" => {
            let (topk, batch) = (count(&mut fields, "topk")?, count(&mut fields, "batch")?);
            let (accept, reject) = (errors(&fields.required("accept")?)?, errors(&fields.required("reject")?)?);
            Comparator::Toploc { topk, batch, accept, reject, test: test(&fields.required("test")?)? }
        }
        other => {
            return wrong(
                &kind.path,
                format!("exact, numeric, image, ignore_lines, norm, topk or toploc, not {:?}", short(other)),
            );
        }
    };
    fields.finish()?;
    let problem = |(field, problem): (&str, String)| match field {
        "" => BadRequest::new(&at.path, problem),
        field => BadRequest::new(format!("{}.{field}", at.path), problem),
    };
    comparator.check().map_err(problem)?;
    Ok(comparator)
}

fn decimal(fields: &mut Fields<'_>, name: &str) -> Read<String> {
    fields.optional(name).map_or(Ok(String::new()), |at| at.decimal())
}

fn count(fields: &mut Fields<'_>, name: &str) -> Read<u32> {
    Ok(fields.required(name)?.integer(0, i128::from(u32::MAX))? as u32)
}

fn band(at: &At<'_>) -> Read<Band> {
    let mut fields = Fields::of(at)?;
    let band = Band { relative: decimal(&mut fields, "relative")?, absolute: decimal(&mut fields, "absolute")? };
    fields.finish()?;
    Ok(band)
}

fn errors(at: &At<'_>) -> Read<ToplocErrors> {
    let mut fields = Fields::of(at)?;
    let exp_mismatches = count(&mut fields, "exp_mismatches")?;
    let mut errors = |name| fields.required(name).and_then(|at| at.decimal());
    let (mant_err_mean, mant_err_median) = (errors("mant_err_mean")?, errors("mant_err_median")?);
    fields.finish()?;
    Ok(ToplocErrors { exp_mismatches, mant_err_mean, mant_err_median })
}

fn test(at: &At<'_>) -> Read<SequentialTest> {
    let mut fields = Fields::of(at)?;
    let mut share = |name| {
        let at = fields.required(name)?;
        match at.value {
            Json::Number(text) | Json::Text(text) => Ok(text.clone()),
            other => wrong(&at.path, format!("a number is needed, not {}", other.kind())),
        }
    };
    let test = SequentialTest {
        alpha: share("alpha")?,
        beta: share("beta")?,
        honest_rate: share("honest_rate")?,
        cheat_rate: share("cheat_rate")?,
    };
    fields.finish()?;
    Ok(test)
}
