//! Keys on disk: encrypted Web3 keystores (v3 JSON), or, marked as such, plain development keys.

use std::{fs, io::IsTerminal as _, path::Path};

use alloy::signers::{
    k256::elliptic_curve::rand_core::OsRng,
    local::{LocalSigner, PrivateKeySigner},
};
use serde::{Deserialize, Serialize};
use tribunal_events::{Address, SigningKey};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// A key file at most, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A plain key, for development: the file says so.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InsecureKey {
    insecure_dev_key: String,
    address: Address,
}

/// Reads the key in `path`: a keystore with the password from `password_file`, from the systemd credential
/// `tribunal-password`, or from the prompt; or a file `{"insecure_dev_key": "0x…", "address": "0x…"}`.
///
/// # Errors
/// A sentence that says what to do.
pub fn load(path: &Path, password_file: Option<&Path>) -> Result<SigningKey, Failure> {
    let shown = path.display();
    let bytes = fs::metadata(path).map_err(|error| Failure::config(format!("the key file {shown}: {error}")))?.len();
    if bytes > KEY_FILE_BYTES_MAX {
        return Err(Failure::config(format!("{shown} has {bytes} bytes and is no key file")));
    }
    let text = Zeroizing::new(
        fs::read_to_string(path).map_err(|error| Failure::config(format!("the key file {shown}: {error}")))?,
    );
    if let Ok(plain) = serde_json::from_str::<InsecureKey>(&text) {
        let digits = Zeroizing::new(plain.insecure_dev_key);
        let mut secret = [0; 32];
        hex::decode_to_slice(digits.trim_start_matches("0x"), &mut secret)
            .map_err(|_| Failure::config(format!("{shown}: insecure_dev_key is 0x and 64 hex digits")))?;
        let key = SigningKey::new(secret).map_err(|error| Failure::config(format!("{shown}: {error}")))?;
        if key.address() != plain.address {
            return Err(Failure::config(format!(
                "{shown}: the key is of {:#x}, not {:#x}",
                key.address(),
                plain.address
            )));
        }
        return Ok(key);
    }
    if serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|json| json.get("crypto").cloned()).is_none() {
        return Err(Failure::config(format!(
            "{shown} is no Web3 keystore (v3 JSON); make one with `tribunal keys new`"
        )));
    }
    let password = password(password_file, false)?;
    let signer: PrivateKeySigner = LocalSigner::decrypt_keystore(path, password.as_bytes())
        .map_err(|_| Failure::config(format!("{shown} does not open with this password")))?;
    SigningKey::new(signer.to_bytes().0).map_err(|error| Failure::config(format!("{shown}: {error}")))
}

/// Makes a new random key in a keystore at `path`, which must not exist.
///
/// # Errors
/// A sentence that says what to do.
pub fn create(path: &Path, password_file: Option<&Path>, insecure: bool) -> Result<Address, Failure> {
    let shown = path.display();
    if path.exists() {
        return Err(Failure::usage(format!("{shown} exists already; keys are never overwritten")));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::config(format!("{shown} cannot be written: {error}"));
    let signer = PrivateKeySigner::random_with(&mut OsRng);
    let (folder, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().and_then(|name| name.to_str()));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Some(name) = name else { return Err(Failure::usage(format!("{shown} is no file name"))) };
    if insecure {
        let secret = Zeroizing::new(format!("0x{}", hex::encode(signer.to_bytes())));
        let key = InsecureKey { insecure_dev_key: secret.to_string(), address: signer.address() };
        fs::write(path, serde_json::to_vec_pretty(&key).expect("plain data")).map_err(|error| failed(&error))?;
    } else {
        let password = password(password_file, true)?;
        LocalSigner::encrypt_keystore(folder, &mut OsRng, signer.to_bytes(), password.as_bytes(), Some(name))
            .map_err(|error| failed(&error))?;
    }
    restrict(path).map_err(|error| failed(&error))?;
    Ok(signer.address())
}

/// The account of a key file, without its password.
///
/// # Errors
/// A sentence that says what to do.
pub fn address(path: &Path) -> Result<Option<Address>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::config(format!("{}: {error}", path.display())))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| Failure::config(format!("{} is no key file", path.display())))?;
    Ok(json.get("address").and_then(|it| it.as_str()).and_then(|text| text.parse().ok()))
}

fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

fn password(file: Option<&Path>, new: bool) -> Result<Zeroizing<String>, Failure> {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder| Path::new(&folder).join("tribunal-password"))
        .filter(|path| path.is_file());
    if let Some(path) = file.map(Path::to_owned).or(credential) {
        let text = fs::read_to_string(&path)
            .map_err(|error| Failure::config(format!("the password file {}: {error}", path.display())))?;
        return Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("a password is needed: give --password-file FILE"));
    }
    let read = |prompt: &str| {
        rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| Failure::usage(error.to_string()))
    };
    let first = read("Password: ")?;
    if new && *read("Again: ")? != *first {
        return Err(Failure::usage("the two passwords differ"));
    }
    Ok(first)
}
