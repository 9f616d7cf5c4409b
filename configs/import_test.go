package configs

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files of imports")

// TestImport: files as people have them, what becomes of them, and what is said of
// the rest. The result is a file that is read without a complaint.
func TestImport(t *testing.T) {
	isolate(t)
	files, err := filepath.Glob(filepath.Join("testdata", "import", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".golden") {
			continue
		}
		seen++
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Import(filepath.Base(file), data)
			if err != nil {
				t.Fatal(err)
			}
			if program, _, _ := strings.Cut(filepath.Base(file), "-"); !strings.HasPrefix(program, got.From) {
				t.Errorf("taken for a file of %s", got.From)
			}
			text := string(got.File) + "\nnot carried over:\n" + strings.Join(got.Left, "\n") + "\n"
			golden := file + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != text {
				t.Errorf("%v; go test ./configs -run TestImport -update, then read the difference:\n%s", err, text)
			}
			cfg, err := LoadAgent(flagSet(t, AgentFlags, "--config", write(t, string(got.File))))
			if err != nil || len(cfg.Tunnels) == 0 {
				t.Errorf("the result has %d tunnels, %v", len(cfg.Tunnels), err)
			}
		})
	}
	if seen < 4 {
		t.Errorf("only %d samples", seen)
	}
}

// TestImportMistakes: what cannot be imported says why, and what to do.
func TestImportMistakes(t *testing.T) {
	isolate(t)
	for _, c := range []struct{ name, text, want string }{
		{"other.yml", "services: {web: {image: nginx}}", "no file of ngrok"},
		{"empty.yml", "", "no file of ngrok"},
		{"text.yml", "a text", "no file of ngrok"},
		{"broken.yml", "a: [", "read broken.yml"},
		{"frpc.toml", "[[proxies]\n", "read frpc.toml"},
		{"frpc.ini", "[common]\nserver_addr = x\n", "old format"},
		{"nothing.yml", "version: 3\nagent: {authtoken: x}\n", "no tunnel that can be carried over"},
		{"udp.toml", "[[proxies]]\nname = 'dns'\ntype = 'udp'\nlocalPort = 53\n", "datagrams"},
		{"odd.yml", "tunnels: {a: {proto: http, addr: [1]}, b: 3}\n", "no tunnel that can be carried over"},
	} {
		_, err := Import(c.name, []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzImport: whatever a file has in it, the result can be read, or there is an
// error.
func FuzzImport(f *testing.F) {
	f.Add("ngrok.yml", "tunnels: {a: {proto: http, addr: 80, basic_auth: ['a:b']}}")
	f.Add("frpc.toml", "[[proxies]]\nname='a'\ntype='http'\nlocalPort=1\ncustomDomains=['a.b']\n")
	f.Add("config.yml", "ingress: [{hostname: a.b, service: 'http://c'}]")
	f.Fuzz(func(t *testing.T, name, text string) {
		got, err := Import(name, []byte(text))
		if err != nil {
			return
		}
		doc := parseDocument("x", got.File)
		m, err := mergeDocument(nil, agentSettings(), doc, tunnelsKey)
		if err != nil {
			t.Fatal(err)
		}
		if cfg, err := m.agent(); err != nil || len(cfg.Tunnels) == 0 {
			t.Errorf("%s has %d tunnels, %v", got.File, len(cfg.Tunnels), err)
		}
	})
}
