//! TLS 1.3 as STOQ speaks it (wire profile, section 2): X25519MLKEM768 only, RFC 7250 raw public
//! keys in both directions, Falcon signatures in their padded form, no resumption, no early data.
//!
//! A peer is its key. The verifiers here prove that the peer holds the key it shows and, when we
//! dial, that this key has the `NodeId` we asked for. Whether a proven key may take part is decided
//! above, after HELLO.
use std::sync::Arc;

use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
};

use crate::{
    der::{KeyAlgorithm, decode_spki, encode_spki},
    falcon::{Degree, Signer as FalconSigner, Verifier as FalconVerifier},
    hash::sha256,
};

/// The only application protocol this node speaks.
pub const ALPN: &[u8] = b"stoq/1";

/// X25519MLKEM768, the only group that is ever agreed on.
pub const KEY_EXCHANGE: u16 = 0x11ec;

pub use crate::{der::node_id, hash::Hash as NodeId};

/// The algorithms that may authenticate a node, in order of preference.
const ALGORITHMS: [KeyAlgorithm; 2] = [
    KeyAlgorithm::FalconPadded512,
    KeyAlgorithm::FalconPadded1024,
];

fn scheme(algorithm: KeyAlgorithm) -> SignatureScheme {
    SignatureScheme::Unknown(algorithm.tls_scheme())
}

/// TLS scheme of a key in its canonical form; 0 when it is none.
#[must_use]
pub fn scheme_of(spki: &[u8]) -> u16 {
    decode_spki(spki).map_or(0, |(algorithm, _)| algorithm.tls_scheme())
}

/// A peer's key, from the one DER form we accept.
fn peer_key(spki: &[u8]) -> Result<(KeyAlgorithm, FalconVerifier), Error> {
    decode_spki(spki)
        .filter(|(algorithm, _)| ALGORITHMS.contains(algorithm))
        .and_then(|(algorithm, raw)| Some((algorithm, FalconVerifier::decode(raw)?)))
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

/// Our key, able to sign a handshake.
pub struct Identity {
    algorithm: KeyAlgorithm,
    signer: Arc<FalconSigner>,
    spki: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Identity({})", self.algorithm.name())
    }
}

impl Identity {
    #[must_use]
    pub fn new(signer: Arc<FalconSigner>) -> Self {
        let algorithm = match signer.degree() {
            Degree::Falcon512 => KeyAlgorithm::FalconPadded512,
            Degree::Falcon1024 => KeyAlgorithm::FalconPadded1024,
        };
        let spki = encode_spki(algorithm, signer.public()).unwrap_or_default();
        Self {
            algorithm,
            signer,
            spki,
        }
    }

    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    #[must_use]
    pub fn node_id(&self) -> NodeId {
        node_id(&self.spki)
    }

    /// A secret that this key, and no other, always yields: lets a restarted node be recognised by
    /// the stateless resets it sends for connections it has forgotten.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        sha256(&[label, self.signer.encoded()])
    }
}

#[derive(Debug)]
struct HandshakeKey(Arc<Identity>);

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&scheme(self.0.algorithm))
            .then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.0.spki[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Unknown(0xfe)
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0
            .signer
            .sign(message)
            .map_err(|_| Error::FailedToGetRandomBytes)
    }

    fn scheme(&self) -> SignatureScheme {
        scheme(self.0.algorithm)
    }
}

/// Proves possession of the shown key; `expected` is set when we dial.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<NodeId>,
}

impl KeyVerifier {
    fn key(&self, spki: &[u8], chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        peer_key(spki)?;
        if !chain.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        match self.expected {
            Some(expected) if expected != node_id(spki) => {
                Err(CertificateError::NotValidForName.into())
            }
            _ => Ok(()),
        }
    }
}

fn verify_signature(
    message: &[u8],
    spki: &[u8],
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let (algorithm, key) = peer_key(spki)?;
    if signed.scheme != scheme(algorithm) {
        return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
    }
    if !key.accepts(message, signed.signature()) {
        return Err(CertificateError::BadSignature.into());
    }
    Ok(HandshakeSignatureValid::assertion())
}

fn schemes() -> Vec<SignatureScheme> {
    ALGORITHMS.map(scheme).to_vec()
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.key(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.key(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Whether AES runs in hardware; decides which suite comes first.
fn aes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// The three suites and the one key exchange of the wire profile.
#[must_use]
pub fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    let mut order = [
        CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    if !aes_in_hardware() {
        order.rotate_right(1);
    }
    let rank = |suite| order.iter().position(|known| *known == suite);
    provider
        .cipher_suites
        .retain(|suite| rank(suite.suite()).is_some());
    provider
        .cipher_suites
        .sort_by_key(|suite| rank(suite.suite()));
    provider
}

fn certified(identity: &Arc<Identity>) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(identity.spki.clone())],
        Arc::new(HandshakeKey(identity.clone())),
    ))
}

/// How we accept: the dialler must prove its key.
///
/// # Errors
/// Only when the provider lacks TLS 1.3, which would be our bug.
pub fn server_config(identity: &Arc<Identity>) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(KeyVerifier { expected: None }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(
            identity,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// How we dial: the acceptor must prove the key that has `expected` as its `NodeId`.
///
/// # Errors
/// Only when the provider lacks TLS 1.3, which would be our bug.
pub fn client_config(identity: &Arc<Identity>, expected: NodeId) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier {
            expected: Some(expected),
        }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(
            identity,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// Why a handshake failed, as far as rustls tells (by alert `code` and the text of its error).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFault {
    WrongKey,
    BadSignature,
    BadKeyEncoding,
    NoPeerKey,
    ClassicalOnly,
    NoRawKey,
    OtherProtocol,
    Other,
}

/// Name the fault behind the text of a rustls error. Texts are made from the errors themselves, so
/// that a new rustls cannot silently drift from what is compared here.
#[must_use]
pub fn handshake_fault(reason: &str) -> HandshakeFault {
    use HandshakeFault as Fault;
    let is = |error: Error| reason == error.to_string();
    let incompatible = |error: PeerIncompatible| is(error.into());
    if is(CertificateError::NotValidForName.into()) {
        Fault::WrongKey
    } else if is(CertificateError::BadSignature.into())
        || is(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    {
        Fault::BadSignature
    } else if is(CertificateError::BadEncoding.into()) {
        Fault::BadKeyEncoding
    } else if is(Error::NoCertificatesPresented) {
        Fault::NoPeerKey
    } else if incompatible(PeerIncompatible::NoKxGroupsInCommon)
        || incompatible(PeerIncompatible::NamedGroupsExtensionRequired)
        || incompatible(PeerIncompatible::KeyShareExtensionRequired)
    {
        Fault::ClassicalOnly
    } else if incompatible(PeerIncompatible::IncorrectCertificateTypeExtension)
        || incompatible(PeerIncompatible::UnsolicitedCertificateTypeExtension)
        || incompatible(PeerIncompatible::NoSignatureSchemesInCommon)
    {
        Fault::NoRawKey
    } else if is(Error::NoApplicationProtocol) {
        Fault::OtherProtocol
    } else {
        Fault::Other
    }
}

#[cfg(test)]
mod tests {
    use rustls::{Side, quic};

    use super::*;

    fn identity(degree: Degree) -> Arc<Identity> {
        Arc::new(Identity::new(Arc::new(
            FalconSigner::generate(degree).unwrap(),
        )))
    }

    #[test]
    fn only_the_canonical_spki_of_a_falcon_key_is_a_peer() {
        for degree in [Degree::Falcon512, Degree::Falcon1024] {
            let spki = identity(degree).spki().to_vec();
            assert!(peer_key(&spki).is_ok());
            assert!(peer_key(&[&spki[..], &[0]].concat()).is_err());
            assert!(peer_key(&spki[..spki.len() - 1]).is_err());
            for at in 0..19 {
                let mut changed = spki.clone();
                changed[at] ^= 1;
                assert!(peer_key(&changed).is_err(), "byte {at}");
            }
        }
        assert!(peer_key(&[]).is_err());
        let other = encode_spki(KeyAlgorithm::MlDsa65, &[0; 1952]).unwrap();
        assert!(peer_key(&other).is_err());
    }

    #[test]
    fn the_verifier_wants_the_key_that_was_dialled() {
        let (ours, theirs) = (identity(Degree::Falcon512), identity(Degree::Falcon512));
        let verifier = KeyVerifier {
            expected: Some(theirs.node_id()),
        };
        assert!(verifier.key(theirs.spki(), &[]).is_ok());
        let fault = verifier.key(ours.spki(), &[]).unwrap_err();
        assert_eq!(
            handshake_fault(&fault.to_string()),
            HandshakeFault::WrongKey
        );
        let extra = [CertificateDer::from(ours.spki().to_vec())];
        assert!(verifier.key(theirs.spki(), &extra).is_err());
    }

    #[test]
    fn the_provider_offers_one_group_and_three_suites() {
        let provider = provider();
        assert_eq!(provider.kx_groups.len(), 1);
        assert_eq!(u16::from(provider.kx_groups[0].name()), 0x11ec);
        assert_eq!(provider.cipher_suites.len(), 3);
    }

    #[test]
    fn our_own_signature_scheme_is_chosen_only_when_offered() {
        let key = HandshakeKey(identity(Degree::Falcon1024));
        assert!(key.choose_scheme(&schemes()).is_some());
        assert!(
            key.choose_scheme(&[SignatureScheme::Unknown(0xfedc)])
                .is_none()
        );
        assert!(key.choose_scheme(&[SignatureScheme::ED25519]).is_none());
    }

    /// Both sides of a handshake, until it is done or one refuses the other.
    fn handshake(server: ServerConfig, client: ClientConfig) -> Result<Vec<u8>, (Side, Error)> {
        let version = quic::Version::V1;
        let mut client = quic::Connection::Client(
            quic::ClientConnection::new(
                Arc::new(client),
                version,
                "stoq.invalid".try_into().unwrap(),
                vec![],
            )
            .unwrap(),
        );
        let mut server = quic::Connection::Server(
            quic::ServerConnection::new(Arc::new(server), version, vec![]).unwrap(),
        );
        loop {
            let mut moved = false;
            for _ in 0..4 {
                let mut flight = vec![];
                client.write_hs(&mut flight);
                moved |= !flight.is_empty();
                server
                    .read_hs(&flight)
                    .map_err(|error| (Side::Server, error))?;
                let mut flight = vec![];
                server.write_hs(&mut flight);
                moved |= !flight.is_empty();
                client
                    .read_hs(&flight)
                    .map_err(|error| (Side::Client, error))?;
            }
            if !moved {
                assert!(!client.is_handshaking() && !server.is_handshaking());
                return Ok(server.peer_certificates().unwrap()[0].to_vec());
            }
        }
    }

    fn refused(server: ServerConfig, client: ClientConfig) -> (Side, HandshakeFault) {
        let (side, error) = handshake(server, client).unwrap_err();
        (side, handshake_fault(&error.to_string()))
    }

    fn pair() -> (Arc<Identity>, Arc<Identity>) {
        (identity(Degree::Falcon512), identity(Degree::Falcon1024))
    }

    #[test]
    fn two_nodes_prove_their_keys() {
        for (ours, theirs) in [pair(), (pair().1, pair().0)] {
            let client = client_config(&ours, theirs.node_id()).unwrap();
            let shown = handshake(server_config(&theirs).unwrap(), client).unwrap();
            assert_eq!(shown, ours.spki());
        }
    }

    #[test]
    fn another_key_than_the_dialled_one_is_refused_by_the_dialler() {
        let (ours, theirs) = pair();
        let client = client_config(&ours, ours.node_id()).unwrap();
        let fault = refused(server_config(&theirs).unwrap(), client);
        assert_eq!(fault, (Side::Client, HandshakeFault::WrongKey));
    }

    #[test]
    fn a_key_without_its_secret_is_refused() {
        let (ours, theirs) = pair();
        let mut stolen = Identity::new(ours.signer.clone());
        stolen.spki = identity(Degree::Falcon512).spki().to_vec();
        let client = client_config(&Arc::new(stolen), theirs.node_id()).unwrap();
        let fault = refused(server_config(&theirs).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::BadSignature));
        let mut stolen = Identity::new(ours.signer.clone());
        stolen.spki = identity(Degree::Falcon512).spki().to_vec();
        let client = client_config(&theirs, stolen.node_id()).unwrap();
        let fault = refused(server_config(&Arc::new(stolen)).unwrap(), client);
        assert_eq!(fault, (Side::Client, HandshakeFault::BadSignature));
    }

    #[test]
    fn a_key_in_another_encoding_is_refused() {
        let (ours, theirs) = pair();
        let mut odd = Identity::new(ours.signer.clone());
        odd.spki.push(0);
        let client = client_config(&Arc::new(odd), theirs.node_id()).unwrap();
        let fault = refused(server_config(&theirs).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::BadKeyEncoding));
    }

    /// A client like ours but for what `change` does to its provider.
    fn client_with(
        identity: &Arc<Identity>,
        expected: NodeId,
        change: impl FnOnce(&mut CryptoProvider),
    ) -> ClientConfig {
        let mut provider = provider();
        change(&mut provider);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier {
                expected: Some(expected),
            }))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                certified(identity),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    #[test]
    fn classical_groups_alone_are_refused_and_never_fallen_back_to() {
        let (ours, theirs) = pair();
        let classical = aws_lc_rs::kx_group::X25519;
        let client = client_with(&ours, theirs.node_id(), |provider| {
            provider.kx_groups = vec![classical];
        });
        let fault = refused(server_config(&theirs).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::ClassicalOnly));
        // A peer that prefers a classical group but has ours is asked again, and then taken.
        let client = client_with(&ours, theirs.node_id(), |provider| {
            provider.kx_groups.insert(0, classical);
        });
        assert!(handshake(server_config(&theirs).unwrap(), client).is_ok());
    }

    #[test]
    fn a_dialler_without_a_key_is_refused() {
        let (_, theirs) = pair();
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier { expected: None }))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let (side, fault) = refused(server_config(&theirs).unwrap(), client);
        assert_eq!(side, Side::Server);
        assert!(
            matches!(fault, HandshakeFault::NoPeerKey | HandshakeFault::NoRawKey),
            "{fault:?}"
        );
    }

    #[test]
    fn another_application_protocol_is_refused() {
        let (ours, theirs) = pair();
        for protocols in [vec![], vec![b"h3".to_vec()]] {
            let mut client = client_config(&ours, theirs.node_id()).unwrap();
            client.alpn_protocols = protocols;
            let fault = refused(server_config(&theirs).unwrap(), client);
            assert_eq!(fault, (Side::Server, HandshakeFault::OtherProtocol));
        }
    }

    #[test]
    fn every_suite_works() {
        let (ours, theirs) = pair();
        for suite in provider().cipher_suites {
            let client = client_with(&ours, theirs.node_id(), |provider| {
                provider
                    .cipher_suites
                    .retain(|known| known.suite() == suite.suite());
            });
            assert!(handshake(server_config(&theirs).unwrap(), client).is_ok());
        }
    }

    #[test]
    fn nothing_can_be_resumed() {
        let (ours, theirs) = pair();
        let server = server_config(&theirs).unwrap();
        assert_eq!(
            (server.send_tls13_tickets, server.max_early_data_size),
            (0, 0)
        );
        assert!(!server.session_storage.can_cache());
        assert!(
            !client_config(&ours, theirs.node_id())
                .unwrap()
                .enable_early_data
        );
    }
}
