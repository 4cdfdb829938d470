package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Users the API server knows by token. The default scheduler runs under the
// permissions upstream's bootstrap policy gives it, so that what works here
// works elsewhere; the rest is plumbing and may do everything.
const (
	userAdmin     = "admin"
	userScheduler = "system:kube-scheduler"
)

// credentials are the files of one cluster's trust, made anew at each start.
type credentials struct {
	dir    string
	ca     []byte // PEM; signs the serving certificate, clients and the front proxy
	tokens map[string]string
}

func (c *credentials) file(name string) string { return filepath.Join(c.dir, name) }

// newCredentials writes into dir: ca.crt, apiserver.{crt,key}, front-proxy.{crt,key},
// service-accounts.key, tokens.csv.
func newCredentials(dir string, addresses []netip.Addr) (*credentials, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c := &credentials{dir: dir, tokens: map[string]string{}}

	caKey, err := newKey()
	if err != nil {
		return nil, err
	}
	ca := certificate("netlatency-sandbox")
	ca.IsCA, ca.BasicConstraintsValid = true, true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	if err := c.issue("ca", ca, ca, caKey, caKey); err != nil {
		return nil, err
	}
	if c.ca, err = os.ReadFile(c.file("ca.crt")); err != nil {
		return nil, err
	}

	serving := certificate("kube-apiserver")
	serving.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serving.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	for _, a := range addresses {
		serving.IPAddresses = append(serving.IPAddresses, net.IP(a.AsSlice()))
	}
	frontProxy := certificate("front-proxy-client")
	frontProxy.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, template := range map[string]*x509.Certificate{"apiserver": serving, "front-proxy": frontProxy} {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		if err := c.issue(name, template, ca, key, caKey); err != nil {
			return nil, err
		}
	}

	accounts, err := newKey()
	if err != nil {
		return nil, err
	}
	if err := c.writeKey("service-accounts", accounts); err != nil {
		return nil, err
	}

	c.tokens[userAdmin], c.tokens[userScheduler] = newToken(), newToken()
	table := fmt.Sprintf("%s,%s,%s,system:masters\n%s,%s,%s\n",
		c.tokens[userAdmin], userAdmin, userAdmin,
		c.tokens[userScheduler], userScheduler, userScheduler)
	return c, os.WriteFile(c.file("tokens.csv"), []byte(table), 0o600)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newToken() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// issue writes name.crt and name.key.
func (c *credentials) issue(name string, template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", name, err)
	}
	if err := os.WriteFile(c.file(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return c.writeKey(name, key)
}

func (c *credentials) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(c.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// writeKubeconfig writes a kubeconfig for a bearer of token at server.
func (c *credentials) writeKubeconfig(path, server, user, token string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["sandbox"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.ca}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["sandbox"] = &clientcmdapi.Context{Cluster: "sandbox", AuthInfo: user}
	config.CurrentContext = "sandbox"
	return clientcmd.WriteToFile(*config, path)
}
