//! TLS 1.3 as STOQ speaks it (wire profile, section 2): X25519MLKEM768 only, RFC 7250 raw public
//! keys in both directions, Falcon signatures in their padded form or ML-DSA-65, no early data.
//!
//! A peer is its key. The verifiers here prove that the peer holds the key it shows and, when we
//! dial, that this key has the `NodeId` we asked for. Whether a proven key may take part is decided
//! above, after HELLO.
//!
//! A session may be resumed once per ticket, with a fresh key exchange and only towards the very key
//! it was made with: tickets are kept under the `NodeId`, and both sides keep the peer's key beside
//! the secret.
use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::signature::{
    KeyPair as _, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, PeerMisbehaved, ServerConfig, SignatureAlgorithm, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, ClientSessionMemoryCache, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs as provided},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ServerSessionMemoryCache,
        StoresServerSessions,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
};

use zeroize::Zeroizing;

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
const ALGORITHMS: [KeyAlgorithm; 3] = [
    KeyAlgorithm::FalconPadded512,
    KeyAlgorithm::FalconPadded1024,
    KeyAlgorithm::MlDsa65,
];

const ML_DSA_65_SIGNATURE_BYTES: usize = 3_309;
/// Sessions that a node remembers as acceptor; the oldest is forgotten first.
const SESSIONS_MAX: usize = 1_024;
/// Tickets that a node remembers as dialler, eight for each of the peers it knows best.
const TICKETS_MAX: usize = 2_048;

fn scheme(algorithm: KeyAlgorithm) -> SignatureScheme {
    SignatureScheme::from(algorithm.tls_scheme())
}

/// TLS scheme of a key in its canonical form; 0 when it is none.
#[must_use]
pub fn scheme_of(spki: &[u8]) -> u16 {
    decode_spki(spki).map_or(0, |(algorithm, _)| algorithm.tls_scheme())
}

enum PeerKey {
    Falcon(FalconVerifier),
    MlDsa(Vec<u8>),
}

impl PeerKey {
    fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Falcon(key) => key.accepts(message, signature),
            Self::MlDsa(key) => UnparsedPublicKey::new(&ML_DSA_65, key)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// A peer's key, from the one DER form we accept.
fn peer_key(spki: &[u8]) -> Result<(KeyAlgorithm, PeerKey), Error> {
    decode_spki(spki)
        .and_then(|(algorithm, raw)| {
            let key = match algorithm {
                KeyAlgorithm::FalconPadded512 | KeyAlgorithm::FalconPadded1024 => {
                    PeerKey::Falcon(FalconVerifier::decode(raw)?)
                }
                KeyAlgorithm::MlDsa65 => PeerKey::MlDsa(raw.to_vec()),
                KeyAlgorithm::MlDsa44 => return None,
            };
            Some((algorithm, key))
        })
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

/// An ML-DSA-65 key from its 32-byte seed (FIPS 204), with an empty context as TLS wants it.
pub struct MlDsaSigner {
    pair: PqdsaKeyPair,
    seed: Zeroizing<[u8; 32]>,
}

impl MlDsaSigner {
    /// `None` when the library refuses the seed.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Option<Self> {
        Some(Self {
            pair: PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seed).ok()?,
            seed: Zeroizing::new(*seed),
        })
    }

    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; ML_DSA_65_SIGNATURE_BYTES];
        let length = self.pair.sign(message, &mut signature).ok()?;
        (length == signature.len()).then_some(signature)
    }
}

/// What signs our handshakes.
#[derive(Clone)]
pub enum KeySigner {
    Falcon(Arc<FalconSigner>),
    MlDsa(Arc<MlDsaSigner>),
}

impl KeySigner {
    fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::Falcon(signer) => match signer.degree() {
                Degree::Falcon512 => KeyAlgorithm::FalconPadded512,
                Degree::Falcon1024 => KeyAlgorithm::FalconPadded1024,
            },
            Self::MlDsa(_) => KeyAlgorithm::MlDsa65,
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Falcon(signer) => signer.public(),
            Self::MlDsa(signer) => signer.public(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Falcon(signer) => signer.sign(message).ok(),
            Self::MlDsa(signer) => signer.sign(message),
        }
        .ok_or(Error::FailedToGetRandomBytes)
    }
}

/// Our key, able to sign a handshake.
pub struct Identity {
    algorithm: KeyAlgorithm,
    signer: KeySigner,
    spki: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Identity({})", self.algorithm.name())
    }
}

impl Identity {
    #[must_use]
    pub fn new(signer: KeySigner) -> Self {
        let algorithm = signer.algorithm();
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
        match &self.signer {
            KeySigner::Falcon(signer) => sha256(&[label, signer.encoded()]),
            KeySigner::MlDsa(signer) => sha256(&[label, signer.seed.as_slice()]),
        }
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
        self.0.signer.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        scheme(self.0.algorithm)
    }
}

/// The name under which a node is dialled: never sent, but it keeps tickets of different nodes
/// apart and tells the verifier whom to expect.
#[must_use]
pub fn server_name(expected: &NodeId) -> String {
    let (first, second) = expected.split_at(expected.len() / 2);
    let hex = |half: &[u8]| {
        half.iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    };
    format!("{}.{}.{SERVER_DOMAIN}", hex(first), hex(second))
}

const SERVER_DOMAIN: &str = "stoq.invalid";

thread_local! {
    /// Whether a signature was checked on this thread since `forget_verified`.
    static VERIFIED: Cell<bool> = const { Cell::new(false) };
}

/// Begin to watch for the next check of a signature on this thread. A handshake runs to its end
/// inside calls of its owner, so this tells a full handshake from a resumed one.
pub fn forget_verified() {
    VERIFIED.set(false);
}

/// Whether a signature was checked since.
#[must_use]
pub fn verified() -> bool {
    VERIFIED.get()
}

/// Proves possession of the shown key.
#[derive(Debug)]
struct KeyVerifier;

fn check_key(
    expected: Option<&ServerName<'_>>,
    spki: &[u8],
    chain: &[CertificateDer<'_>],
) -> Result<(), Error> {
    peer_key(spki)?;
    if !chain.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    match expected {
        Some(name) if name.to_str() != server_name(&node_id(spki)) => {
            Err(CertificateError::NotValidForName.into())
        }
        _ => Ok(()),
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
    VERIFIED.set(true);
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
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_key(Some(name), end_entity, intermediates).map(|()| ServerCertVerified::assertion())
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
        check_key(None, end_entity, intermediates).map(|()| ClientCertVerified::assertion())
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
    let mut provider = provided::default_provider();
    provider.kx_groups = vec![provided::kx_group::X25519MLKEM768];
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

/// Sessions of an acceptor: each is given out once, and asking for another one is counted.
#[derive(Debug)]
pub struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    refused: AtomicU64,
}

impl Sessions {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            cache: ServerSessionMemoryCache::new(SESSIONS_MAX),
            refused: AtomicU64::new(0),
        })
    }

    /// Tickets that were used before, or never given out by us.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(key, value)
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None // would let a session be resumed twice; TLS 1.3 takes them
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let session = self.cache.take(key);
        if session.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        session
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// How we accept: the dialler must prove its key, now or in the session it resumes.
///
/// # Errors
/// Only when the provider lacks TLS 1.3, which would be our bug.
pub fn server_config(
    identity: &Arc<Identity>,
    sessions: Option<Arc<Sessions>>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(KeyVerifier))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(
            identity,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    match sessions {
        Some(sessions) => config.session_storage = sessions,
        None => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Ok(config)
}

/// How we dial: the acceptor must prove the key whose [`server_name`] is given with each dial. One
/// configuration serves all dials, or no ticket would be found again.
///
/// # Errors
/// Only when the provider lacks TLS 1.3, which would be our bug.
pub fn client_config(identity: &Arc<Identity>, resumption: bool) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyVerifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(
            identity,
        ))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = if resumption {
        Resumption::store(Arc::new(ClientSessionMemoryCache::new(TICKETS_MAX)))
    } else {
        Resumption::disabled()
    };
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
    BadKeyShare,
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
    } else if is(PeerMisbehaved::InvalidKeyShare.into()) {
        Fault::BadKeyShare
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
        Arc::new(Identity::new(KeySigner::Falcon(Arc::new(
            FalconSigner::generate(degree).unwrap(),
        ))))
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
        let other = encode_spki(KeyAlgorithm::MlDsa44, &[0; 1312]).unwrap();
        assert!(peer_key(&other).is_err());
    }

    #[test]
    fn the_verifier_wants_the_key_that_was_dialled() {
        let (ours, theirs) = (identity(Degree::Falcon512), identity(Degree::Falcon512));
        let name = ServerName::try_from(server_name(&theirs.node_id())).unwrap();
        assert!(check_key(Some(&name), theirs.spki(), &[]).is_ok());
        let fault = check_key(Some(&name), ours.spki(), &[]).unwrap_err();
        assert_eq!(
            handshake_fault(&fault.to_string()),
            HandshakeFault::WrongKey
        );
        let extra = [CertificateDer::from(ours.spki().to_vec())];
        assert!(check_key(Some(&name), theirs.spki(), &extra).is_err());
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

    /// How, and whom.
    type Dial = (ClientConfig, NodeId);

    fn dial(identity: &Arc<Identity>, expected: NodeId) -> Dial {
        (client_config(identity, false).unwrap(), expected)
    }

    /// Both sides of a handshake, until it is done or one refuses the other.
    fn handshake(server: ServerConfig, dial: Dial) -> Result<Vec<u8>, (Side, Error)> {
        let (client, expected) = dial;
        between(&Arc::new(server), &Arc::new(client), &expected).map(|(shown, _)| shown)
    }

    /// The dialler's key as the acceptor knows it, and whether the session was resumed.
    fn between(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        expected: &NodeId,
    ) -> Result<(Vec<u8>, bool), (Side, Error)> {
        forget_verified();
        let version = quic::Version::V1;
        let mut client = quic::Connection::Client(
            quic::ClientConnection::new(
                client.clone(),
                version,
                server_name(expected).try_into().unwrap(),
                vec![],
            )
            .unwrap(),
        );
        let mut server = quic::Connection::Server(
            quic::ServerConnection::new(server.clone(), version, vec![]).unwrap(),
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
                assert_eq!(node_id(&client.peer_certificates().unwrap()[0]), *expected);
                let shown = server.peer_certificates().unwrap()[0].to_vec();
                return Ok((shown, !verified()));
            }
        }
    }

    fn refused(server: ServerConfig, dial: Dial) -> (Side, HandshakeFault) {
        let (side, error) = handshake(server, dial).unwrap_err();
        (side, handshake_fault(&error.to_string()))
    }

    fn pair() -> (Arc<Identity>, Arc<Identity>) {
        (identity(Degree::Falcon512), identity(Degree::Falcon1024))
    }

    #[test]
    fn two_nodes_prove_their_keys() {
        for (ours, theirs) in [pair(), (pair().1, pair().0)] {
            let client = dial(&ours, theirs.node_id());
            let shown = handshake(server_config(&theirs, None).unwrap(), client).unwrap();
            assert_eq!(shown, ours.spki());
        }
    }

    #[test]
    fn another_key_than_the_dialled_one_is_refused_by_the_dialler() {
        let (ours, theirs) = pair();
        let client = dial(&ours, ours.node_id());
        let fault = refused(server_config(&theirs, None).unwrap(), client);
        assert_eq!(fault, (Side::Client, HandshakeFault::WrongKey));
    }

    #[test]
    fn a_key_without_its_secret_is_refused() {
        let (ours, theirs) = pair();
        let mut stolen = Identity::new(ours.signer.clone());
        stolen.spki = identity(Degree::Falcon512).spki().to_vec();
        let client = dial(&Arc::new(stolen), theirs.node_id());
        let fault = refused(server_config(&theirs, None).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::BadSignature));
        let mut stolen = Identity::new(ours.signer.clone());
        stolen.spki = identity(Degree::Falcon512).spki().to_vec();
        let client = dial(&theirs, stolen.node_id());
        let fault = refused(server_config(&Arc::new(stolen), None).unwrap(), client);
        assert_eq!(fault, (Side::Client, HandshakeFault::BadSignature));
    }

    #[test]
    fn a_key_in_another_encoding_is_refused() {
        let (ours, theirs) = pair();
        let mut odd = Identity::new(ours.signer.clone());
        odd.spki.push(0);
        let client = dial(&Arc::new(odd), theirs.node_id());
        let fault = refused(server_config(&theirs, None).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::BadKeyEncoding));
    }

    /// A client like ours but for what `change` does to its provider.
    fn client_with(
        identity: &Arc<Identity>,
        expected: NodeId,
        change: impl FnOnce(&mut CryptoProvider),
    ) -> Dial {
        let mut provider = provider();
        change(&mut provider);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                certified(identity),
            )));
        config.alpn_protocols = vec![ALPN.to_vec()];
        (config, expected)
    }

    #[test]
    fn classical_groups_alone_are_refused_and_never_fallen_back_to() {
        let (ours, theirs) = pair();
        let classical = provided::kx_group::X25519;
        let client = client_with(&ours, theirs.node_id(), |provider| {
            provider.kx_groups = vec![classical];
        });
        let fault = refused(server_config(&theirs, None).unwrap(), client);
        assert_eq!(fault, (Side::Server, HandshakeFault::ClassicalOnly));
        // A peer that prefers a classical group but has ours is asked again, and then taken.
        let client = client_with(&ours, theirs.node_id(), |provider| {
            provider.kx_groups.insert(0, classical);
        });
        assert!(handshake(server_config(&theirs, None).unwrap(), client).is_ok());
    }

    #[test]
    fn a_dialler_without_a_key_is_refused() {
        let (_, theirs) = pair();
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(KeyVerifier))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let dial = (client, theirs.node_id());
        let (side, fault) = refused(server_config(&theirs, None).unwrap(), dial);
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
            let mut client = dial(&ours, theirs.node_id());
            client.0.alpn_protocols = protocols;
            let fault = refused(server_config(&theirs, None).unwrap(), client);
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
            assert!(handshake(server_config(&theirs, None).unwrap(), client).is_ok());
        }
    }

    #[test]
    fn nothing_is_resumed_unless_asked_for() {
        let (ours, theirs) = pair();
        let server = server_config(&theirs, None).unwrap();
        assert_eq!(
            (server.send_tls13_tickets, server.max_early_data_size),
            (0, 0)
        );
        assert!(!server.session_storage.can_cache());
        assert!(!client_config(&ours, true).unwrap().enable_early_data);
    }

    #[test]
    fn ml_dsa_keys_prove_themselves_like_falcon_keys() {
        let seeded = |byte| {
            let signer = MlDsaSigner::new(&[byte; 32]).unwrap();
            Arc::new(Identity::new(KeySigner::MlDsa(Arc::new(signer))))
        };
        let (ours, theirs) = (seeded(1), seeded(2));
        assert_eq!(scheme_of(ours.spki()), 0x0905);
        assert_eq!(seeded(1).spki(), ours.spki());
        let server = || server_config(&theirs, None).unwrap();
        let shown = handshake(server(), dial(&ours, theirs.node_id())).unwrap();
        assert_eq!(shown, ours.spki());
        let fault = refused(server(), dial(&ours, ours.node_id()));
        assert_eq!(fault, (Side::Client, HandshakeFault::WrongKey));
        let falcon = identity(Degree::Falcon512);
        assert!(handshake(server(), dial(&falcon, theirs.node_id())).is_ok());
        let mut stolen = Identity::new(ours.signer.clone());
        stolen.spki = seeded(3).spki().to_vec();
        let fault = refused(server(), dial(&Arc::new(stolen), theirs.node_id()));
        assert_eq!(fault, (Side::Server, HandshakeFault::BadSignature));
    }

    #[test]
    fn a_session_is_resumed_with_the_same_peer_and_keys_on_both_sides() {
        let (ours, theirs) = pair();
        let sessions = Sessions::new();
        let server = Arc::new(server_config(&theirs, Some(sessions.clone())).unwrap());
        let client = Arc::new(client_config(&ours, true).unwrap());
        let first = between(&server, &client, &theirs.node_id()).unwrap();
        assert_eq!(first, (ours.spki().to_vec(), false));
        let second = between(&server, &client, &theirs.node_id()).unwrap();
        assert_eq!(second, (ours.spki().to_vec(), true));
        assert_eq!(sessions.refused(), 0);
    }

    #[test]
    fn a_ticket_of_one_node_is_not_shown_to_another() {
        let (ours, theirs) = pair();
        let other = identity(Degree::Falcon512);
        let sessions = Sessions::new();
        let server = Arc::new(server_config(&theirs, Some(sessions.clone())).unwrap());
        let client = Arc::new(client_config(&ours, true).unwrap());
        between(&server, &client, &theirs.node_id()).unwrap();
        let elsewhere = Arc::new(server_config(&other, Some(sessions.clone())).unwrap());
        let (_, resumed) = between(&elsewhere, &client, &other.node_id()).unwrap();
        assert!(!resumed);
        assert_eq!(sessions.refused(), 0);
    }

    #[test]
    fn a_ticket_that_was_used_or_forgotten_leads_to_a_full_handshake() {
        let (ours, theirs) = pair();
        let client = Arc::new(client_config(&ours, true).unwrap());
        let server = |sessions| Arc::new(server_config(&theirs, Some(sessions)).unwrap());
        between(&server(Sessions::new()), &client, &theirs.node_id()).unwrap();
        let forgetful = Sessions::new();
        let shown = between(&server(forgetful.clone()), &client, &theirs.node_id()).unwrap();
        assert_eq!(shown, (ours.spki().to_vec(), false));
        assert_eq!(forgetful.refused(), 1);
        forgetful.put(vec![1], vec![2]);
        assert_eq!(forgetful.take(&[1]), Some(vec![2]));
        assert_eq!(forgetful.take(&[1]), None);
        assert_eq!((forgetful.get(&[1]), forgetful.refused()), (None, 2));
    }
}
