package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
)

// bom writes the bill of materials of both programs: what they say of themselves that they are made of, with the licences
// that NOTICE found.
func (r *release) bom(w io.Writer, arch string) error {
	bom := cyclonedx.NewBOM()
	top := cyclonedx.Component{BOMRef: "torno", Type: cyclonedx.ComponentTypeApplication, Name: "torno", Version: packageVersion(r.version, r.time), Licenses: licence("Apache-2.0")}
	modules := map[string]cyclonedx.Component{}
	dependencies := []cyclonedx.Dependency{}
	var names []string
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	notice, err := os.ReadFile(filepath.Join(r.root, "NOTICE"))
	if err != nil {
		return err
	}
	programRefs := []string{}
	components := []cyclonedx.Component{}
	for _, name := range names {
		program, linked, err := describe(r.program(arch, name), name, top.Version)
		if err != nil {
			return err
		}
		var refs []string
		for _, m := range linked {
			if m.Licenses, err = licencesIn(string(notice), m.Name); err != nil {
				return err
			}
			modules[m.BOMRef] = m
			refs = append(refs, m.BOMRef)
		}
		components = append(components, program)
		programRefs = append(programRefs, program.BOMRef)
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: program.BOMRef, Dependencies: &refs})
	}
	var refs []string
	for ref := range modules {
		refs = append(refs, ref)
	}
	slices.Sort(refs)
	for _, ref := range refs {
		components = append(components, modules[ref])
	}
	dependencies = append([]cyclonedx.Dependency{{Ref: "torno", Dependencies: &programRefs}}, dependencies...)
	bom.Metadata = &cyclonedx.Metadata{Timestamp: r.time.Format(time.RFC3339), Component: &top}
	bom.Components, bom.Dependencies = &components, &dependencies
	bom.SerialNumber = "urn:uuid:" + uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s %s %s", top.Version, arch, refs)).String()
	e := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON)
	e.SetPretty(true)
	return e.EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}

// describe returns a program as a component, and the modules that it says it is made of.
func describe(path, name, version string) (cyclonedx.Component, []cyclonedx.Component, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return cyclonedx.Component{}, nil, err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return cyclonedx.Component{}, nil, err
	}
	sum := sha256.Sum256(b)
	program := cyclonedx.Component{
		BOMRef: "program:" + name, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: version, Licenses: licence("Apache-2.0"),
		Hashes: &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	}
	linked := []cyclonedx.Component{module(debug.Module{Path: "std", Version: strings.TrimPrefix(info.GoVersion, "go")})}
	for _, m := range info.Deps {
		linked = append(linked, module(*m))
	}
	return program, linked, nil
}

// module returns a module as a component. Std is the standard library.
func module(m debug.Module) cyclonedx.Component {
	if m.Replace != nil {
		m = *m.Replace
	}
	purl := fmt.Sprintf("pkg:golang/%s@%s", m.Path, m.Version)
	return cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl}
}

func licence(ids ...string) *cyclonedx.Licenses {
	var all cyclonedx.Licenses
	for _, id := range ids {
		all = append(all, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	return &all
}

// phrases are what licences are known by, the more special ones first.
var phrases = []struct{ id, phrase string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy"},
}

// licencesIn returns the licences whose texts NOTICE has for a module.
func licencesIn(notice, name string) (*cyclonedx.Licenses, error) {
	heading := "\n" + strings.Repeat("=", 80) + "\n"
	if name == "std" {
		name = "The Go standard library"
	}
	for _, section := range strings.Split(notice, heading)[1:] {
		title, text, _ := strings.Cut(section, "\n")
		if title != name && !strings.HasPrefix(title, name+" ") {
			continue
		}
		text = strings.Join(strings.Fields(text), " ")
		var ids []string
		for _, p := range phrases {
			if strings.Contains(text, p.phrase) && !slices.Contains(ids, p.id) && (p.id != "BSD-2-Clause" || !slices.Contains(ids, "BSD-3-Clause")) {
				ids = append(ids, p.id)
			}
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("the licence of %s is none that is known", name)
		}
		return licence(ids...), nil
	}
	return nil, fmt.Errorf("%s is not in NOTICE (hint: make notice)", name)
}
