package configs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/wgexpose/wgexpose/tunnel"
)

// Imported is another program's configuration as one of ours.
type Imported struct {
	From string   // the program: "ngrok", "frp" or "cloudflared"
	File []byte   // a wgexpose.yml
	Left []string // what it does not carry over, each with the reason
}

// Import turns a file of ngrok, frp (frpc) or cloudflared into one of ours. Which
// of them wrote it is found out. name is for messages, and its ending says whether
// it is TOML.
func Import(name string, data []byte) (Imported, error) {
	if len(data) > maxFile {
		return Imported{}, fmt.Errorf("%s is larger than %d bytes, the most that is read", name, maxFile)
	}
	var root map[string]any
	var file any
	var err error
	if strings.EqualFold(filepath.Ext(name), ".toml") {
		err = toml.Unmarshal(data, &root)
	} else {
		err = yaml.Unmarshal(data, &file)
		root, _ = file.(map[string]any) // else it has no keys
	}
	if root == nil && bytes.Contains(data, []byte("[common]")) {
		return Imported{}, fmt.Errorf("%s is in frp's old format (INI); frp can convert it: frpc verify tells how, and frpc.toml can be imported", name)
	}
	if err != nil {
		return Imported{}, fmt.Errorf("read %s: %w", name, err)
	}
	has := func(keys ...string) bool {
		return slices.ContainsFunc(keys, func(k string) bool { _, ok := root[k]; return ok })
	}
	i := &importer{settings: map[string]string{}}
	top := table{i: i, keys: root}
	switch {
	case has("serverAddr", "proxies"):
		i.from = "frp"
		top.frp()
	case has("ingress", "credentials-file", "tunnel"):
		i.from = "cloudflared"
		top.cloudflared()
	case has("authtoken", "tunnels", "endpoints", "agent"):
		i.from = "ngrok"
		top.ngrok()
	default:
		return Imported{}, fmt.Errorf("%s is no file of ngrok (ngrok.yml), frp (frpc.toml) or cloudflared (config.yml): none of their keys is in it", name)
	}
	return i.result(name)
}

// importer collects what a file says.
type importer struct {
	from     string
	settings map[string]string
	tunnels  []importedTunnel
	left     []string
}

type importedTunnel struct {
	name   string
	path   string            // in the file that is read
	values map[string]string // by our keys; several on lines of their own
}

// leave notes what is not carried over.
func (i *importer) leave(path, why string) { i.left = append(i.left, path+": "+why) }

// add takes a tunnel over, under a name that is good and free.
func (i *importer) add(path, name string, values map[string]string) {
	good := label(name)
	taken := func(n string) bool {
		return slices.ContainsFunc(i.tunnels, func(t importedTunnel) bool { return t.name == n })
	}
	free := good
	for n := 2; taken(free); n++ {
		free = fmt.Sprintf("%s-%d", good, n)
	}
	if free != name && name != "" {
		i.leave(path, fmt.Sprintf("the name %s became %s", quote(name), free))
	}
	i.tunnels = append(i.tunnels, importedTunnel{free, path, values})
}

// label makes a name a DNS label.
func label(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	s = strings.Trim(s[:min(len(s), 63)], "-")
	if tunnel.ValidateName(s) != nil {
		return "tunnel"
	}
	return s
}

// result checks all and writes it down.
func (i *importer) result(name string) (Imported, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range agentSettings() {
		if v, ok := i.settings[s.key]; ok {
			root.Content = append(root.Content, word(s.key), importedValue(v))
		}
	}
	tunnels := &yaml.Node{Kind: yaml.MappingNode}
	for _, t := range i.tunnels {
		if entry := i.checked(t); entry != nil {
			tunnels.Content = append(tunnels.Content, word(t.name), entry)
		}
	}
	if len(tunnels.Content) == 0 {
		return Imported{}, errors.Join(fmt.Errorf("%s has no tunnel that can be carried over", name), leftError(i.left))
	}
	root.Content = append(root.Content, word(tunnelsKey), tunnels)
	file, err := encodeYAML(root)
	if err != nil {
		return Imported{}, err
	}
	head := SchemaLine("wgexpose.yml") + "# Imported from " + i.from + ".\n"
	return Imported{From: i.from, File: append([]byte(head), file...), Left: i.left}, nil
}

func leftError(left []string) error {
	if len(left) == 0 {
		return nil
	}
	return errors.New(strings.Join(left, "\n"))
}

// checked is a tunnel as it is written, without what cannot be used; nil when that
// is all of it.
func (i *importer) checked(t importedTunnel) *yaml.Node {
	for {
		_, problems := ParseTunnel(t.name, t.values)
		if len(problems) == 0 {
			break
		}
		p := problems[0]
		_, there := t.values[p.Key]
		if !there || p.Key == "kind" || p.Key == "upstream" {
			i.leave(t.path, cmp.Or(p.Key, "name")+": "+p.Message)
			return nil
		}
		i.leave(t.path, p.Key+": "+p.Message)
		delete(t.values, p.Key)
	}
	entry := &yaml.Node{Kind: yaml.MappingNode}
	for _, key := range tunnelKeys() {
		v, ok := t.values[key]
		if !ok {
			continue
		}
		value := importedValue(v)
		if slices.Contains(policyKeys(), key) {
			value = &yaml.Node{Kind: yaml.SequenceNode}
			for item := range strings.SplitSeq(v, "\n") {
				value.Content = append(value.Content, importedValue(item))
			}
		}
		entry.Content = append(entry.Content, word(key), value)
	}
	return entry
}

// importedValue is text of another program, in which a dollar means nothing.
func importedValue(s string) *yaml.Node { return word(strings.ReplaceAll(s, "${", "$${")) }

// table is a map of a file. What is read is taken out, so that the rest is what
// nobody has read.
type table struct {
	i    *importer
	path string
	keys map[string]any
}

func (t table) at(key string) string { return join(t.path, key) }

// take returns a plain value as text; "" when it is not there.
func (t table) take(key string) string {
	v, ok := t.keys[key]
	if !ok {
		return ""
	}
	switch v := v.(type) {
	case string:
		delete(t.keys, key)
		return v
	case bool, int, int64, uint64, float64:
		delete(t.keys, key)
		return fmt.Sprint(v)
	case nil:
		delete(t.keys, key)
	}
	return "" // stays, and is told
}

// list returns a list of plain values, or a single one.
func (t table) list(key string) []string {
	items, ok := t.keys[key].([]any)
	if !ok {
		if one := t.take(key); one != "" {
			return []string{one}
		}
		return nil
	}
	delete(t.keys, key)
	var out []string
	for n, item := range items {
		one := table{t.i, t.path, map[string]any{key: item}}
		if s := one.take(key); s != "" {
			out = append(out, s)
		} else {
			t.i.leave(fmt.Sprintf("%s[%d]", t.at(key), n), "is no plain value")
		}
	}
	return out
}

// sub returns a map below; an empty one when there is none.
func (t table) sub(key string) table {
	m, ok := t.keys[key].(map[string]any)
	if ok {
		delete(t.keys, key)
	}
	return table{t.i, t.at(key), m}
}

// each calls fn for the maps of a list or, in the order of their names, of a map.
func (t table) each(key string, fn func(name string, one table)) {
	switch all := t.keys[key].(type) {
	case []any:
		delete(t.keys, key)
		for n, v := range all {
			path := fmt.Sprintf("%s[%d]", t.at(key), n)
			if m, ok := v.(map[string]any); ok {
				fn("", table{t.i, path, m})
			} else {
				t.i.leave(path, "is no map")
			}
		}
	case map[string]any:
		delete(t.keys, key)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			path := join(t.at(key), name)
			if m, ok := all[name].(map[string]any); ok {
				fn(name, table{t.i, path, m})
			} else {
				t.i.leave(path, "is no map")
			}
		}
	}
}

// rest says of everything that was not read that it is left out: for the reason of
// its key, or because there is nothing like it.
func (t table) rest(why map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		t.i.leave(t.at(key), cmp.Or(why[key], "there is nothing like it here"))
	}
}

// put sets a value that is there.
func put(values map[string]string, key, value string) {
	if value != "" {
		values[key] = value
	}
}

func putList(values map[string]string, key string, list []string) {
	if len(list) > 0 {
		values[key] = strings.Join(list, "\n")
	}
}
