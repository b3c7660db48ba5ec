//! Where an authority publishes what it says of its certificates.

use super::http::is_http;
use x509_cert::{
    Certificate,
    der::{Decode, asn1::ObjectIdentifier},
    ext::pkix::{
        AuthorityInfoAccessSyntax, CrlDistributionPoints,
        name::{DistributionPointName, GeneralName},
    },
};

/// Most addresses of one kind in one certificate that are tried.
const MOST_URLS: usize = 2;
/// id-ad-ocsp.
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
/// Longest address, in bytes.
const LONGEST_URL: usize = 1024;

/// Returns the addresses of the revocation lists that may have a certificate and can be fetched: those of
/// HTTP.
pub(super) fn crl_urls(certificate: &[u8]) -> Vec<String> {
    let names = crl_names(certificate).into_iter();
    names.filter(|name| name.len() <= LONGEST_URL && is_http(name)).take(MOST_URLS).collect()
}

/// Returns the addresses of the revocation lists that may have a certificate (RFC 5280 §4.2.1.13). A
/// point with reasons or another issuer does not say all, so it is left out.
pub(super) fn crl_names(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return vec![] };
    let points = certificate.tbs_certificate().get_extension::<CrlDistributionPoints>();
    let Ok(Some((_, CrlDistributionPoints(points)))) = points else { return vec![] };
    let whole = points.into_iter().filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    let names = whole.filter_map(|point| match point.distribution_point? {
        DistributionPointName::FullName(names) => Some(names),
        DistributionPointName::NameRelativeToCRLIssuer(_) => None,
    });
    let uri = |name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    names.flatten().filter_map(uri).collect()
}

/// Returns the addresses of the responders for a certificate (RFC 5280 §4.2.2.1): those of HTTP.
pub(super) fn ocsp_urls(certificate: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return vec![] };
    let access = certificate.tbs_certificate().get_extension::<AuthorityInfoAccessSyntax>();
    let Ok(Some((_, AuthorityInfoAccessSyntax(access)))) = access else { return vec![] };
    let responders = access.iter().filter(|access| access.access_method == OCSP);
    responders.filter_map(|access| url(&access.access_location)).take(MOST_URLS).collect()
}

/// Returns the address if it is one of HTTP.
fn url(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(url) if url.as_str().len() <= LONGEST_URL => {
            is_http(url.as_str()).then(|| url.to_string())
        }
        _ => None,
    }
}
