//! A PowerShell script for Windows 10 and 11.

use super::{
    algorithms::{Choice, Hash, Known, choose},
    request::ProfileError,
    terms::Terms,
};
use crate::config::model::PeerMethod;
use base64ct::{Base64, Encoding};
use std::fmt::Write;
use wayfarer_mobility::crypto::{Encr, Kex};

const IKE: Known = Known {
    encr: &[
        (Encr::AesCbc(256), "AES256"),
        (Encr::AesCbc(128), "AES128"),
        (Encr::AesGcm(256), "GCMAES256"),
        (Encr::AesGcm(128), "GCMAES128"),
    ],
    hash: &[(Hash::Sha256, "SHA256"), (Hash::Sha384, "SHA384")],
    kex: &[(Kex::Ecp384, "ECP384"), (Kex::Ecp256, "ECP256"), (Kex::Modp2048, "Group14")],
};

const ESP: Known = Known {
    encr: &[
        (Encr::AesGcm(256), "GCMAES256"),
        (Encr::AesGcm(128), "GCMAES128"),
        (Encr::AesCbc(256), "AES256"),
        (Encr::AesCbc(128), "AES128"),
    ],
    hash: &[(Hash::Sha256, "SHA256128")],
    kex: &[(Kex::Ecp384, "ECP384"), (Kex::Ecp256, "ECP256"), (Kex::Modp2048, "PFS2048")],
};

pub(super) fn profile(terms: &Terms<'_>) -> Result<String, ProfileError> {
    let Some(authority) = &terms.authority else {
        return Err(terms.refuse(
            "Windows connects by IKEv2 only to a gateway with a certificate: set auth to \"certificate\", \
             or to \"eap-mschapv2\" for names and passwords",
        ));
    };
    let protocol = &terms.connection.protocol;
    let ike = choose(&protocol.ike, &IKE)
        .ok_or_else(|| terms.no_algorithms("proposals", "aes256-sha256-prfsha256-ecp384"))?;
    let esp = choose(&protocol.esp, &ESP).ok_or_else(|| terms.no_algorithms("esp", "aes256gcm16"))?;
    Ok(script(terms, &Base64::encode_string(&authority.der), &ike, &esp))
}

fn script(terms: &Terms<'_>, authority: &str, ike: &Choice, esp: &Choice) -> String {
    let name = quoted(&format!("{} VPN", terms.server));
    let server = quoted(&terms.server);
    let is_machine = terms.connection.peer_method == PeerMethod::Certificate;
    let mut text = String::from(
        "# Run as administrator: powershell -ExecutionPolicy Bypass -File THIS_FILE\n\
         $ErrorActionPreference = 'Stop'\n\n# The authority of the gateway's certificate.\n\
         $authority = Join-Path $env:TEMP 'vpn-authority.cer'\n",
    );
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "try {{\n    \
         [IO.File]::WriteAllBytes($authority, [Convert]::FromBase64String('{authority}'))\n    \
         Import-Certificate -FilePath $authority -CertStoreLocation Cert:\\LocalMachine\\Root | Out-Null\n\
         }} finally {{\n    \
         Remove-Item $authority -ErrorAction SilentlyContinue\n\
         }}\n"
    );
    if let Some(own) = &terms.own {
        let store = if is_machine { "LocalMachine" } else { "CurrentUser" };
        let bundle = Base64::encode_string(&own.bundle);
        let _ = writeln!(
            text,
            "# The certificate of this user or machine. Asks for the password that was printed with it.\n\
             $bundle = Join-Path $env:TEMP 'vpn-user.pfx'\n\
             try {{\n    \
             [IO.File]::WriteAllBytes($bundle, [Convert]::FromBase64String('{bundle}'))\n    \
             $password = Read-Host -AsSecureString 'Password of the certificate'\n    \
             Import-PfxCertificate -FilePath $bundle -CertStoreLocation Cert:\\{store}\\My -Password $password | Out-Null\n\
             }} finally {{\n    \
             Remove-Item $bundle -ErrorAction SilentlyContinue\n\
             }}\n"
        );
    }
    let method = match terms.connection.peer_method {
        PeerMethod::Certificate => "-AuthenticationMethod MachineCertificate",
        PeerMethod::EapTls => {
            text += "$eap = New-EapConfiguration -Tls -UserCertificate\n";
            "-AuthenticationMethod Eap -EapConfigXmlStream $eap.EapConfigXmlStream"
        }
        _ => "-AuthenticationMethod Eap -RememberCredential",
    };
    // Windows ignores the domains that the gateway sends.
    let domain = terms.connection.protocol.domains.first();
    let domain = domain.map(|name| format!(" -DnsSuffix {}", quoted(name))).unwrap_or_default();
    let split = if terms.is_everything() { "" } else { " -SplitTunneling" };
    let _ = writeln!(
        text,
        "Remove-VpnConnection -Name {name} -Force -ErrorAction SilentlyContinue\n\
         Add-VpnConnection -Name {name} -ServerAddress {server} -TunnelType IKEv2 {method} -EncryptionLevel Required{split}{domain}"
    );
    let integrity = if esp.is_aead { esp.encr } else { esp.hash };
    let _ = writeln!(
        text,
        "Set-VpnConnectionIPsecConfiguration -ConnectionName {name} -EncryptionMethod {} -IntegrityCheckMethod {} \
         -DHGroup {} -CipherTransformConstants {} -AuthenticationTransformConstants {integrity} -PfsGroup {} -Force",
        ike.encr,
        ike.hash,
        ike.kex.unwrap_or("None"),
        esp.encr,
        esp.kex.unwrap_or("None"),
    );
    let networks = terms.networks.iter().filter(|_| !terms.is_everything());
    for network in networks {
        let _ = writeln!(
            text,
            "Add-VpnConnectionRoute -ConnectionName {name} -DestinationPrefix {}",
            quoted(network)
        );
    }
    text
}

/// Returns a string that PowerShell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
