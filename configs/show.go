package configs

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// ShowAgent gives the settings that an agent would start with as a file, each
// with the place that it comes from, and the tunnels with variables in place and
// passwords hidden. The error is that of LoadAgent.
func ShowAgent(flags *pflag.FlagSet) ([]byte, error) {
	cfg, err := LoadAgent(flags)
	if err != nil {
		return nil, err
	}
	m, err := loadMerged(flags, agentSettings(), AgentFile, tunnelsKey)
	if err != nil {
		return nil, err
	}
	root := m.show(cfg.State)
	if f, ok := m.fields[tunnelsKey]; ok && f.value.Kind == yaml.MappingNode {
		root.Content = append(root.Content, word(tunnelsKey), m.plain(f.value, ""))
	}
	return encodeYAML(root)
}

// ShowEdge is ShowAgent for an edge.
func ShowEdge(flags *pflag.FlagSet) ([]byte, error) {
	cfg, err := LoadEdge(flags)
	if err != nil {
		return nil, err
	}
	m, err := loadMerged(flags, edgeSettings(), EdgeFile, edgeMaps()...)
	if err != nil {
		return nil, err
	}
	root := m.show(cfg.State)
	for _, key := range edgeMaps() {
		if f, ok := m.fields[key]; ok {
			root.Content = append(root.Content, word(key), m.plain(f.value, ""))
		}
	}
	return encodeYAML(root)
}

func loadMerged(flags *pflag.FlagSet, settings []setting, file func() (string, error), more ...string) (*merged, error) {
	standard, err := standardFile(flags, file)
	if err != nil {
		return nil, err
	}
	return merge(flags, settings, standard, more...)
}

// show makes a map of the settings.
func (m *merged) show(state string) *yaml.Node {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range m.settings {
		value := word(withoutPassword(m.values.GetString(s.key)))
		if s.key == "state" {
			value = word(state)
		}
		value.LineComment = "# default"
		if p, set := m.place(s.key); set {
			value.LineComment = "# " + p.Place
		}
		if value.Value == "" {
			value.Style = yaml.DoubleQuotedStyle
		}
		root.Content = append(root.Content, word(s.key), value)
	}
	return root
}

// plain copies a value without comments and aliases, and with the values of
// variables. above is the key that it belongs to.
func (m *merged) plain(n *yaml.Node, above string) *yaml.Node {
	n = resolve(n)
	out := &yaml.Node{Kind: n.Kind, Tag: n.Tag}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := resolve(n.Content[i]).Value
			out.Content = append(out.Content, word(key), m.plain(n.Content[i+1], key))
		}
	case yaml.SequenceNode:
		out.Style = yaml.FlowStyle
		for _, c := range n.Content {
			out.Content = append(out.Content, m.plain(c, above))
		}
	default:
		text, _ := m.scalar(field{line: n.Line, value: n}, above) // it was read without an error before
		if slices.Contains(secretKeys(), above) {
			text = "********"
		}
		if above == "basic_auth" {
			if c, err := parseCredential(text); err == nil {
				text = c.User + ":********"
			}
		}
		out.Tag, out.Value = "", text
	}
	return out
}

// withoutPassword hides the password of an address such as http://me:x@proxy.
func withoutPassword(s string) string {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		return u.Redacted()
	}
	return s
}

func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func encodeYAML(n *yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(n); err != nil {
		return nil, fmt.Errorf("write settings: %w", err)
	}
	return out.Bytes(), encoder.Close()
}
