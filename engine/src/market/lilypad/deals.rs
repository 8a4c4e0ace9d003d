//! The deal as its parties hold it: a JSON document off the chain, whose CID is the deal's id.
//!
//! The id is the CID of the document with an empty id in it. What is hashed is what Go's `json.Marshal` writes for the
//! marketplace's struct, so the document's own bytes are taken as they are, without reading and writing them again: the id
//! stands first, and nothing but it is blanked. A solver gives exactly these bytes (inside a container, with a line end). A
//! document that was written by other software, with spaces or with fields that the parties' version did not have, has
//! another CID and is not believed.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use alloy_primitives::U256;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Number, value::RawValue};
use tokio::io::AsyncReadExt as _;
use tribunal_contracts::lilypad::{DealMembers, DealPricing};
use tribunal_events::Address;
use tribunal_verifiers::Cid;

/// Bytes of a document at most.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// How long a solver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where documents are.
pub enum Deals {
    /// Files `<dealId>.json` in a folder.
    Folder(PathBuf),
    /// A solver: `<url>/deals/<dealId>`.
    Solver {
        /// Asks it.
        client: reqwest::Client,
        /// `http(s)://…`, without a slash at the end.
        url: String,
    },
}

/// What of a document matters to a mediator.
#[derive(Debug, Deserialize)]
pub struct Deal {
    members: Members,
    pricing: Pricing,
    /// What the job creator wants done.
    pub job_offer: JobOffer,
}

#[derive(Debug, Deserialize)]
struct Members {
    solver: String,
    job_creator: String,
    resource_provider: String,
    mediators: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Pricing {
    instruction_price: Number,
    payment_collateral: Number,
    results_collateral_multiple: u64,
    mediation_fee: Number,
}

/// A module and what goes into it.
#[derive(Debug, Deserialize)]
pub struct JobOffer {
    /// The module.
    pub module: Module,
    /// What fills its template, by name.
    #[serde(default, deserialize_with = "each_once")]
    pub inputs: BTreeMap<String, String>,
}

/// A module, by a name that the marketplace's software knows, else by a place in a git repository.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Module {
    /// Where it is not empty, it alone counts.
    #[serde(default)]
    pub name: String,
    /// URL of the repository.
    #[serde(default)]
    pub repo: String,
    /// The commit.
    #[serde(default)]
    pub hash: String,
    /// The template in it.
    #[serde(default)]
    pub path: String,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, repo, hash, path } = self;
        if name.is_empty() { write!(f, "{repo}@{hash}/{}", path.trim_start_matches('/')) } else { f.write_str(name) }
    }
}

/// A map in which no name comes twice: Go writes none, and readers differ in which one counts.
fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct EachOnce;
    impl<'de> de::Visitor<'de> for EachOnce {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("texts by name")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut read = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                if read.insert(name.clone(), value).is_some() {
                    return Err(de::Error::custom(format!("{name:?} is given twice")));
                }
            }
            Ok(read)
        }
    }
    deserializer.deserialize_any(EachOnce)
}

impl Deals {
    /// Documents in a folder, or with `http://` or `https://` at a solver.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(place: &str) -> Result<Self, String> {
        if !place.starts_with("http://") && !place.starts_with("https://") {
            let folder = PathBuf::from(place);
            return if folder.is_dir() { Ok(Self::Folder(folder)) } else { Err(format!("{place} is no folder")) };
        }
        let url = place.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&url).map_err(|error| error.to_string())?;
        if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
            // Settings are shown and faults are logged.
            return Err("a solver's URL has no user, password or query".into());
        }
        tribunal_contracts::install_tls();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self::Solver { client, url })
    }

    /// The document of a deal, as it comes.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub async fn fetch(&self, id: Cid) -> Result<String, String> {
        let bytes = match self {
            Self::Folder(folder) => {
                let path = folder.join(format!("{id}.json"));
                let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
                let file = tokio::fs::File::open(&path).await.map_err(wrong)?;
                let mut bytes = Vec::new();
                file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).await.map_err(wrong)?;
                bytes
            }
            Self::Solver { client, url } => {
                let wrong = |error: reqwest::Error| {
                    format!("the solver: {}", crate::failure::with_causes(&error.without_url()))
                };
                let answer = client.get(format!("{url}/deals/{id}")).send().await;
                let mut answer = answer.map_err(wrong)?;
                if answer.status() != reqwest::StatusCode::OK {
                    return Err(format!("the solver answers with {}", answer.status()));
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(wrong)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                        break;
                    }
                }
                bytes
            }
        };
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(format!("the document has more than {DOCUMENT_BYTES_MAX} bytes"));
        }
        String::from_utf8(bytes).map_err(|_| "the document is no text".into())
    }
}

impl Deal {
    /// Reads the document of a deal, alone or in a solver's container.
    ///
    /// # Errors
    /// A sentence that says why it is not this deal's.
    pub fn read(text: &str, id: Cid) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Container<'a> {
            #[serde(borrow)]
            deal: Option<&'a RawValue>,
        }
        let unreadable = |error: serde_json::Error| format!("it is no deal: {error}");
        let container: Container<'_> = serde_json::from_str(text).map_err(unreadable)?;
        let text = container.deal.map_or(text, RawValue::get).trim_ascii();
        let after = |id: &str| text.strip_prefix(&format!("{{\"id\":\"{id}\""));
        let rest = after(&id.to_string()).or_else(|| after(""));
        let rest = rest.ok_or("it does not begin with the deal's id, as the marketplace's software writes it")?;
        let found = Cid::of_data(format!("{{\"id\":\"\"{rest}").as_bytes());
        if found != id {
            return Err(format!("it is the document of deal {found}"));
        }
        serde_json::from_str(text).map_err(unreadable)
    }

    /// Whether parties and prices are those of the chain; else which ones are not.
    pub fn agrees(&self, members: &DealMembers, pricing: &DealPricing) -> Result<(), String> {
        let Members { solver, job_creator, resource_provider, mediators } = &self.members;
        let same = |what: &str, text: &str, chain: Address| match text.parse::<Address>() {
            Ok(address) if address == chain => Ok(()),
            _ => Err(format!("the {what} is {chain:#x} on the chain and {text:?} in the document")),
        };
        same("solver", solver, members.solver)?;
        same("job creator", job_creator, members.jobCreator)?;
        same("resource provider", resource_provider, members.resourceProvider)?;
        if mediators.len() != members.mediators.len() {
            let (chain, document) = (members.mediators.len(), mediators.len());
            return Err(format!("there are {chain} mediators on the chain and {document} in the document"));
        }
        for (text, chain) in mediators.iter().zip(&members.mediators) {
            same("mediator", text, *chain)?;
        }
        let whole = |what: &str, tokens: &Number, chain: U256| match base_units(tokens) {
            Some(units) if units == chain => Ok(()),
            _ => Err(format!("the {what} is {chain} on the chain and {tokens} tokens in the document")),
        };
        let Pricing { instruction_price, payment_collateral, results_collateral_multiple, mediation_fee } =
            &self.pricing;
        whole("instruction price", instruction_price, pricing.instructionPrice)?;
        whole("payment collateral", payment_collateral, pricing.paymentCollateral)?;
        whole("mediation fee", mediation_fee, pricing.mediationFee)?;
        if U256::from(*results_collateral_multiple) != pricing.resultsCollateralMultiple {
            let chain = pricing.resultsCollateralMultiple;
            return Err(format!(
                "the results collateral's multiple is {chain} on the chain and {results_collateral_multiple} in the document"
            ));
        }
        Ok(())
    }
}

/// Whole tokens in base units as the marketplace's `EtherToWei` converts them: a product of doubles, cut to an integer.
fn base_units(tokens: &Number) -> Option<U256> {
    let product = tokens.as_f64()? * 1e18;
    // Above 2^128 no token has such an amount, and the cast would saturate.
    (product >= 0.0 && product < u128::MAX as f64).then(|| U256::from(product as u128))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A document as `json.Marshal` writes it, with its id; parts of it can be replaced.
    pub fn document(replaced: &[(&str, &str)]) -> (Cid, String) {
        let mut blank = concat!(
            r#"{"id":"","members":{"solver":"0x0000000000000000000000000000000000000001","#,
            r#""job_creator":"0x000000000000000000000000000000000000000A","#,
            r#""resource_provider":"0x0000000000000000000000000000000000000003","#,
            r#""mediators":["0x0000000000000000000000000000000000000004"]},"#,
            r#""pricing":{"instruction_price":10,"payment_collateral":30,"results_collateral_multiple":4,"mediation_fee":5},"#,
            r#""job_offer":{"id":"QmJobOffer","created_at":1,"job_creator":"0x000000000000000000000000000000000000000A","#,
            r#""module":{"name":"","repo":"https://example.org/m","hash":"abc","path":"/module.json"},"#,
            r#""spec":{"gpu":0},"inputs":{"Message":"hi \u003c \"you\""},"mode":"MarketPrice"},"#,
            r#""resource_offer":{"id":"QmResourceOffer","index":0}}"#
        )
        .to_owned();
        for (from, to) in replaced {
            assert_eq!(blank.matches(from).count(), 1, "{from}");
            blank = blank.replace(from, to);
        }
        let id = Cid::of_data(blank.as_bytes());
        (id, blank.replacen("\"id\":\"\"", &format!("\"id\":\"{id}\""), 1))
    }

    pub fn members() -> DealMembers {
        let at = Address::with_last_byte;
        DealMembers { solver: at(1), jobCreator: at(10), resourceProvider: at(3), mediators: vec![at(4)] }
    }

    pub fn pricing() -> DealPricing {
        let tokens = |whole: u64| U256::from(whole) * U256::from(10).pow(U256::from(18));
        DealPricing {
            instructionPrice: tokens(10),
            paymentCollateral: tokens(30),
            resultsCollateralMultiple: U256::from(4),
            mediationFee: tokens(5),
        }
    }

    #[test]
    fn a_document_is_the_deals_alone_or_in_a_container() {
        let (id, text) = document(&[]);
        let container = format!(r#"{{"id":"{id}","created_at":7,"state":4,"deal":{text},"mediator":"0x04"}}"#);
        for text in [&text, &format!("{text}\n"), &format!("{container}\n"), &text.replacen(&id.to_string(), "", 1)] {
            let deal = Deal::read(text, id).unwrap();
            assert_eq!(deal.job_offer.module.to_string(), "https://example.org/m@abc/module.json");
            assert_eq!(deal.job_offer.inputs["Message"], "hi < \"you\"");
            deal.agrees(&members(), &pricing()).unwrap();
        }
    }

    #[test]
    fn a_document_of_other_bytes_is_another_deals() {
        let (id, text) = document(&[]);
        let (other, changed) = document(&[("hi ", "ho ")]);
        assert_ne!(id, other);
        for (text, problem) in [
            (changed.clone(), "does not begin with the deal's id"),
            (changed.replace(&other.to_string(), &id.to_string()), "document of deal"),
            (text.replace(":10,", ": 10,"), "document of deal"),
            (text.replace("\\u003c", "<"), "document of deal"),
            (text.replace("{\"id\"", "{ \"id\""), "does not begin"),
            (text.replace('}', ""), "it is no deal"),
            (format!(r#"{{"deal":{changed}}}"#), "does not begin"),
            ("[]".into(), "it is no deal"),
            (String::new(), "it is no deal"),
        ] {
            let found = Deal::read(&text, id).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
        let (id, twice) = document(&[(r#""Message":"hi"#, r#""Message":"","Message":"hi"#)]);
        assert!(Deal::read(&twice, id).unwrap_err().contains("given twice"));
        let (id, none) = document(&[(r#"{"Message":"hi \u003c \"you\""}"#, "null")]);
        assert!(
            Deal::read(&none, id).unwrap().job_offer.inputs.is_empty(),
            "Go writes null for a map that was never made"
        );
    }

    #[test]
    fn parties_and_prices_must_be_the_chains() {
        let agrees = |replaced: &[(&str, &str)], members: &DealMembers, pricing: &DealPricing| {
            let (id, text) = document(replaced);
            Deal::read(&text, id).unwrap().agrees(members, pricing)
        };
        let problem = |replaced: &[(&str, &str)], part: &str| {
            let found = agrees(replaced, &members(), &pricing()).unwrap_err();
            assert!(found.contains(part), "{found}");
        };
        problem(
            &[("0x0000000000000000000000000000000000000001", "0x0000000000000000000000000000000000000002")],
            "the solver",
        );
        problem(&[(r#"["0x0000000000000000000000000000000000000004"]"#, "[]")], "mediators");
        problem(&[("000000000000000004", "000000000000000005")], "the mediator");
        problem(&[("\"0x0000000000000000000000000000000000000003\"", "\"\"")], "the resource provider");
        problem(&[("instruction_price\":10", "instruction_price\":11")], "the instruction price");
        problem(&[("payment_collateral\":30", "payment_collateral\":-30")], "the payment collateral");
        problem(&[("multiple\":4", "multiple\":5")], "multiple");
        problem(&[("mediation_fee\":5", "mediation_fee\":5e30")], "the mediation fee");
        let half = DealPricing { mediationFee: U256::from(500_000_000_000_000_000_u64), ..pricing() };
        agrees(&[("mediation_fee\":5", "mediation_fee\":0.5")], &members(), &half).unwrap();
    }

    #[test]
    fn tokens_become_base_units_as_doubles_do() {
        let units = |text: &str| base_units(&serde_json::from_str(text).unwrap());
        assert_eq!(units("1"), Some(U256::from(1_000_000_000_000_000_000_u64)));
        assert_eq!(units("0"), Some(U256::ZERO));
        // 12345 × 10^18 is no double: the marketplace asks for a little less than it says.
        assert_eq!(units("12345").map(|it| it.to_string()).as_deref(), Some("12344999999999999737856"));
        assert_eq!(units("9007199254740993").unwrap(), units("9007199254740992").unwrap());
        assert_eq!(units("-1"), None);
        assert_eq!(units("1e21"), None);
    }

    #[tokio::test]
    async fn documents_come_from_a_folder_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (id, text) = document(&[]);
        let deals = Deals::new(folder.path().to_str().unwrap()).unwrap();
        assert!(deals.fetch(id).await.unwrap_err().contains("No such file"));
        std::fs::write(folder.path().join(format!("{id}.json")), &text).unwrap();
        assert_eq!(deals.fetch(id).await.unwrap(), text);
        std::fs::write(folder.path().join(format!("{id}.json")), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(deals.fetch(id).await.unwrap_err().contains("more than"));
        std::fs::write(folder.path().join(format!("{id}.json")), [0xff]).unwrap();
        assert!(deals.fetch(id).await.unwrap_err().contains("no text"));
        assert!(Deals::new("/nowhere/at/all").is_err());
        assert!(Deals::new("https://").is_err());
        for secret in ["https://me:secret@solver.example/api/v1", "https://solver.example/api/v1?key=secret"] {
            assert!(Deals::new(secret).is_err_and(|problem| !problem.contains("secret")));
        }
    }

    /// Answers every request so, and tells the paths.
    fn solver(status: &'static str, body: Vec<u8>) -> (String, std::sync::mpsc::Receiver<String>) {
        use std::io::{BufRead as _, BufReader, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1/", listener.local_addr().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let _ = tell.send(lines.next().unwrap_or_default());
                lines.find(String::is_empty);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // Whoever had enough hangs up.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        (url, told)
    }

    #[tokio::test]
    async fn documents_come_from_a_solver_bounded() {
        let (id, text) = document(&[]);
        let container = format!(r#"{{"id":"{id}","state":4,"deal":{text}}}"#) + "\n";
        let (url, told) = solver("200 OK", container.clone().into_bytes());
        let fetched = Deals::new(&url).unwrap().fetch(id).await.unwrap();
        assert_eq!(told.recv().unwrap(), format!("GET /api/v1/deals/{id} HTTP/1.1"));
        assert_eq!(fetched, container);
        Deal::read(&fetched, id).unwrap();
        for (status, body, problem) in [
            ("404 Not Found", Vec::new(), "404"),
            ("302 Found", Vec::new(), "302"),
            ("200 OK", vec![b' '; 8 << 20], "more than"),
            ("200 OK", vec![0xff], "no text"),
        ] {
            let (url, _told) = solver(status, body);
            let found = Deals::new(&url).unwrap().fetch(id).await.map(|_| status).unwrap_err();
            assert!(found.contains(problem), "{status}: {found}");
        }
        let away = Deals::new("http://127.0.0.1:1").unwrap().fetch(id).await.unwrap_err();
        assert!(away.starts_with("the solver: "), "{away}");
    }
}
