package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/zone"
)

// dnsSecret is what the APIs ask for.
const dnsSecret = "dns-api-secret"

// dnsOptions are what an edge is told of each provider whose API is here.
var dnsOptions = map[string]string{
	"cloudflare":   `api_token: "${DNS_SECRET}"`,
	"digitalocean": `api_token: "${DNS_SECRET}"`,
	"hetzner":      `api_token: "${DNS_SECRET}"`,
	"route53":      `region: us-east-1, access_key_id: "${DNS_SECRET}", secret_access_key: "${DNS_SECRET}"`,
}

// dnsAPI answers for the DNS providers, as far as their documentation says what is
// asked and answered for TXT records of one zone. A process with its environment
// finds it in their place.
type dnsAPI struct {
	t      *testing.T
	zone   *zone.Zone
	domain string
	env    []string

	mu      sync.Mutex // guards all below
	records map[int]dnsTXT
	last    int // id
}

type dnsTXT struct{ name, value string }

// startDNSAPI serves the zone of domain until the test ends.
func startDNSAPI(t *testing.T, z *zone.Zone, domain string) *dnsAPI {
	t.Helper()
	a := &dnsAPI{t: t, zone: z, domain: domain, records: make(map[int]dnsTXT)}
	mux := http.NewServeMux()
	mux.HandleFunc("api.cloudflare.com/", a.cloudflare)
	mux.HandleFunc("api.digitalocean.com/", a.digitalocean)
	mux.HandleFunc("api.hetzner.cloud/", a.hetzner)
	mux.HandleFunc("route53.amazonaws.com/", a.route53)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.refuse(w, r, "no such API") })

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "APIs"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"api.cloudflare.com", "api.digitalocean.com", "api.hetzner.cloud", "route53.amazonaws.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "apis.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	apis := httptest.NewUnstartedServer(mux)
	apis.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	apis.StartTLS()
	t.Cleanup(apis.Close)
	// A proxy that leads every name there; a process asks none for this machine.
	way := httptest.NewServer(connectTo(apis.Listener.Addr().String()))
	t.Cleanup(way.Close)
	a.env = []string{"DNS_SECRET=" + dnsSecret, "HTTPS_PROXY=" + way.URL, "SSL_CERT_FILE=" + root, "AWS_CA_BUNDLE=" + root}
	return a
}

// connectTo is a proxy whose CONNECT always leads to addr.
func connectTo(addr string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(up, conn) // either end is the end
			up.Close()
		}()
		_, _ = io.Copy(conn, up)
		conn.Close()
		<-ended
	})
}

// wantRemoved waits until no record is left of at least one that there was.
func (a *dnsAPI) wantRemoved() {
	a.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		added, left := a.last, len(a.records)
		a.mu.Unlock()
		switch {
		case added > 0 && left == 0:
			return
		case time.Now().After(deadline):
			a.t.Fatalf("%d records were added, and %d are left", added, left)
		}
	}
}

// add takes in a record, whose name ends with the zone's.
func (a *dnsAPI) add(name, value string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last++
	a.records[a.last] = dnsTXT{name, value}
	a.zone.Add(name, strings.Trim(value, `"`)) // with quotes it is the same record
	return a.last
}

// remove takes out those that it says yes to, and returns how many they were.
func (a *dnsAPI) remove(which func(id int, txt dnsTXT) bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, txt := range a.records {
		if which(id, txt) {
			delete(a.records, id)
			a.zone.Remove(txt.name, strings.Trim(txt.value, `"`))
			n++
		}
	}
	return n
}

func (a *dnsAPI) refuse(w http.ResponseWriter, r *http.Request, why string) {
	a.t.Errorf("%s %s%s: %s", r.Method, r.Host, r.URL, why)
	http.Error(w, why, http.StatusBadRequest)
}

// read decodes the body of a request that has the secret.
func (a *dnsAPI) read(w http.ResponseWriter, r *http.Request, secret string, body any) bool {
	if !strings.HasPrefix(r.Header.Get("Authorization"), secret) {
		a.refuse(w, r, "Authorization is "+r.Header.Get("Authorization"))
		return false
	}
	var err error
	switch {
	case body == nil:
	case r.Host == "route53.amazonaws.com":
		err = xml.NewDecoder(r.Body).Decode(body)
	default:
		err = json.NewDecoder(r.Body).Decode(body)
	}
	if err != nil {
		a.refuse(w, r, err.Error())
		return false
	}
	return true
}

type object map[string]any

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client asks again
}

// https://developers.cloudflare.com/api/resources/dns/subresources/records/
func (a *dnsAPI) cloudflare(w http.ResponseWriter, r *http.Request) {
	const records = "/client/v4/zones/Z1/dns_records"
	show := func(id int, txt dnsTXT) object {
		return object{"id": fmt.Sprint(id), "type": "TXT", "name": txt.name, "content": txt.value, "ttl": 120}
	}
	ok := func(result any) {
		answer(w, http.StatusOK, object{"success": true, "errors": []any{}, "result": result})
	}
	var body struct{ Type, Name, Content string }
	into := any(&body)
	if r.Method != http.MethodPost {
		into = nil
	}
	if !a.read(w, r, "Bearer "+dnsSecret, into) {
		return
	}
	switch path := r.URL.Path; {
	case r.Method == http.MethodGet && path == "/client/v4/zones":
		if name := r.FormValue("name"); strings.TrimSuffix(name, ".") != a.domain {
			a.refuse(w, r, "no such zone")
			return
		}
		ok([]object{{"id": "Z1", "name": a.domain}})
	case r.Method == http.MethodPost && path == records && body.Type == "TXT":
		name := body.Name
		if !strings.HasSuffix(name, a.domain) { // either is taken
			name += "." + a.domain
		}
		ok(show(a.add(name, body.Content), dnsTXT{name, body.Content}))
	case r.Method == http.MethodGet && path == records:
		found := []object{}
		a.mu.Lock()
		for id, txt := range a.records {
			if txt.name == r.FormValue("name") && strings.Contains(txt.value, r.FormValue("content.contains")) {
				found = append(found, show(id, txt))
			}
		}
		a.mu.Unlock()
		ok(found)
	case r.Method == http.MethodDelete && strings.HasPrefix(path, records+"/"):
		asked := path[len(records)+1:]
		var gone dnsTXT
		if a.remove(func(id int, txt dnsTXT) bool { gone = txt; return fmt.Sprint(id) == asked }) == 0 {
			a.refuse(w, r, "no such record")
			return
		}
		ok(object{"id": asked, "type": "TXT", "name": gone.name, "content": gone.value})
	default:
		a.refuse(w, r, "no such call")
	}
}

// https://docs.digitalocean.com/reference/api/digitalocean/#tag/Domain-Records
func (a *dnsAPI) digitalocean(w http.ResponseWriter, r *http.Request) {
	records := "/v2/domains/" + a.domain + "/records"
	var body struct{ Type, Name, Data string }
	into := any(&body)
	if r.Method != http.MethodPost {
		into = nil
	}
	if !a.read(w, r, "Bearer "+dnsSecret, into) {
		return
	}
	switch path := r.URL.Path; {
	case r.Method == http.MethodPost && path == records && body.Type == "TXT":
		id := a.add(body.Name+"."+a.domain, body.Data)
		answer(w, http.StatusCreated, object{"domain_record": object{"id": id, "type": "TXT", "name": body.Name, "data": body.Data, "ttl": 1800}})
	case r.Method == http.MethodDelete && strings.HasPrefix(path, records+"/"):
		asked := path[len(records)+1:]
		if a.remove(func(id int, _ dnsTXT) bool { return fmt.Sprint(id) == asked }) == 0 {
			a.refuse(w, r, "no such record")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		a.refuse(w, r, "no such call")
	}
}

// https://docs.hetzner.cloud/reference/cloud#zone-rrset-actions
func (a *dnsAPI) hetzner(w http.ResponseWriter, r *http.Request) {
	var body struct{ Records []struct{ Value string } }
	if !a.read(w, r, "Bearer "+dnsSecret, &body) {
		return
	}
	before, action, ok := strings.Cut(r.URL.Path, "/TXT/actions/")
	name, here := strings.CutPrefix(before, "/v1/zones/"+a.domain+"/rrsets/")
	if r.Method != http.MethodPost || !ok || !here || len(body.Records) != 1 {
		a.refuse(w, r, "no such call")
		return
	}
	name += "." + a.domain
	value := strings.Trim(body.Records[0].Value, `"`)
	switch action {
	case "add_records":
		a.add(name, value)
	case "remove_records":
		a.remove(func(_ int, txt dnsTXT) bool { return txt == dnsTXT{name, value} })
	}
	answer(w, http.StatusCreated, object{"action": object{"id": 1, "command": action, "status": "success", "progress": 100}})
}

// https://docs.aws.amazon.com/Route53/latest/APIReference/
func (a *dnsAPI) route53(w http.ResponseWriter, r *http.Request) {
	const rrset = "/2013-04-01/hostedzone/Z1/rrset"
	type set struct {
		Name, Type      string
		TTL             int
		ResourceRecords []struct{ Value string } `xml:"ResourceRecords>ResourceRecord"`
	}
	var body struct {
		Changes []struct {
			Action            string
			ResourceRecordSet set
		} `xml:"ChangeBatch>Changes>Change"`
	}
	into := any(&body)
	if r.Method != http.MethodPost {
		into = nil
	}
	if !a.read(w, r, "AWS4-HMAC-SHA256 Credential="+dnsSecret+"/", into) {
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	switch path := strings.TrimSuffix(r.URL.Path, "/"); {
	case r.Method == http.MethodGet && path == "/2013-04-01/hostedzonesbyname":
		fmt.Fprintf(w, `<ListHostedZonesByNameResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><HostedZones><HostedZone>`+
			`<Id>/hostedzone/Z1</Id><Name>%s.</Name><CallerReference>1</CallerReference><Config><PrivateZone>false</PrivateZone></Config>`+
			`</HostedZone></HostedZones><IsTruncated>false</IsTruncated><MaxItems>1</MaxItems></ListHostedZonesByNameResponse>`, a.domain)
	case r.Method == http.MethodGet && path == rrset:
		sets := make(map[string]string)
		a.mu.Lock()
		for _, txt := range a.records {
			sets[txt.name] += "<ResourceRecord><Value>&quot;" + txt.value + "&quot;</Value></ResourceRecord>"
		}
		a.mu.Unlock()
		io.WriteString(w, `<ListResourceRecordSetsResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><ResourceRecordSets>`)
		for name, values := range sets {
			fmt.Fprintf(w, `<ResourceRecordSet><Name>%s.</Name><Type>TXT</Type><TTL>0</TTL><ResourceRecords>%s</ResourceRecords></ResourceRecordSet>`, name, values)
		}
		io.WriteString(w, `</ResourceRecordSets><IsTruncated>false</IsTruncated><MaxItems>1000</MaxItems></ListResourceRecordSetsResponse>`)
	case r.Method == http.MethodPost && path == rrset:
		for _, c := range body.Changes {
			name := strings.TrimSuffix(c.ResourceRecordSet.Name, ".")
			had := a.remove(func(_ int, txt dnsTXT) bool { return txt.name == name && c.Action != "CREATE" })
			switch {
			case c.Action == "DELETE" && had == 0, c.Action == "CREATE" && a.has(name):
				a.refuse(w, r, c.Action+" of "+name)
				return
			case c.Action == "DELETE":
				continue
			}
			for _, record := range c.ResourceRecordSet.ResourceRecords {
				a.add(name, strings.Trim(record.Value, `"`))
			}
		}
		io.WriteString(w, `<ChangeResourceRecordSetsResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><ChangeInfo>`+
			`<Id>/change/C1</Id><Status>INSYNC</Status><SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>`)
	default:
		a.refuse(w, r, "no such call")
	}
}

func (a *dnsAPI) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, txt := range a.records {
		if txt.name == name {
			return true
		}
	}
	return false
}
