package main

import (
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

const threeLines = "2026-01-01T10:00:00.5Z first\n2026-01-01T10:00:01.25Z second\n2026-01-01T10:00:02Z third one\n"

func TestALogIsReadAsTheQueryAsks(t *testing.T) {
	cases := []struct {
		query string
		want  []string
	}{
		{"", []string{"first", "second", "third one"}},
		{"sinceTime=2026-01-01T10:00:01Z", []string{"second", "third one"}},
		{"sinceSeconds=1", nil},
		{"tailLines=1", []string{"third one"}},
		{"tailLines=0", nil},
		{"tailLines=9&timestamps=true&sinceTime=2026-01-01T10:00:02Z", []string{"2026-01-01T10:00:02Z third one"}},
	}
	for _, test := range cases {
		query, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		selection, err := parseSelection(query)
		if err != nil {
			t.Fatalf("%q: %v", test.query, err)
		}
		if got := selection.read(strings.NewReader(threeLines)); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, not %q", test.query, got, test.want)
		}
	}
}

func TestAQueryThatCannotBeAnsweredIsRefused(t *testing.T) {
	for _, text := range []string{"follow=true", "sinceTime=yesterday", "sinceSeconds=x", "tailLines=x"} {
		query, _ := url.ParseQuery(text)
		if _, err := parseSelection(query); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestALineIsWrittenWhenItIsCompleteAndNotBefore(t *testing.T) {
	logs, err := newLogs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	output, err := logs.Open("ns", "pod")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	read := func() []string {
		file, err := os.Open(logs.path("ns", "pod"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		return selection{tail: -1}.read(file)
	}
	_, _ = io.WriteString(output, "one\ntw")
	if got := read(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q", got)
	}
	_, _ = io.WriteString(output, "o\n\nthree\n")
	if got := read(); !slices.Equal(got, []string{"one", "two", "", "three"}) {
		t.Errorf("%q", got)
	}
}
