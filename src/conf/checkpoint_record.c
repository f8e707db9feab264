/*
 * checkpoint_record.c: what the store keeps of one checkpoint
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A record is one XML file: id, state, the client's view of the checkpoint
 * (<domaincheckpoint> without its domain), the segments, and last the domain's XML.
 * The domain is a CDATA section rather than elements, so that it comes back byte for
 * byte and costs nothing to parse in a store with a thousand records.
 *
 * A record that parses is whole: a file cut short is malformed XML, and everything that
 * later becomes a path or a bitmap's name is checked here.  Unknown versions are
 * refused, since guessing at segments can lose changes.
 */

#include "config.h"

#include "checkpoint_record.h"

#include "checkpoint_defpriv.h"
#include "checkpoint_error.h"
#include "checkpoint_recordpriv.h"

#include <string.h>

static const gchar *const virCheckpointRecordStates[] = {
    [VIR_CHECKPOINT_RECORD_CREATING] = "creating",
    [VIR_CHECKPOINT_RECORD_READY] = "ready",
    [VIR_CHECKPOINT_RECORD_DELETING] = "deleting",
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointRecordStates) == VIR_CHECKPOINT_RECORD_LAST);

const gchar *
virCheckpointRecordStateToString(virCheckpointRecordState state)
{
    g_assert(state < VIR_CHECKPOINT_RECORD_LAST);
    return virCheckpointRecordStates[state];
}

virCheckpointSegment *
virCheckpointSegmentNew(const gchar *target)
{
    virCheckpointSegment *segment = g_new0(virCheckpointSegment, 1);

    segment->target = g_strdup(target);
    segment->bitmaps = g_ptr_array_new_with_free_func(g_free);
    segment->sidecars = g_ptr_array_new_with_free_func(g_free);
    segment->heirs = g_ptr_array_new_with_free_func(g_free);
    return segment;
}

void
virCheckpointSegmentSetNames(GPtrArray *to, const GPtrArray *from)
{
    guint i;

    g_ptr_array_set_size(to, 0);
    for (i = 0; i < from->len; i++)
        g_ptr_array_add(to, g_strdup(g_ptr_array_index(from, i)));
}

virCheckpointSegment *
virCheckpointSegmentCopy(const virCheckpointSegment *segment)
{
    virCheckpointSegment *copy = NULL;

    if (!segment)
        return NULL;
    copy = virCheckpointSegmentNew(segment->target);
    copy->born = g_strdup(segment->born);
    copy->sizeBytes = segment->sizeBytes;
    copy->granularity = segment->granularity;
    copy->lost = segment->lost;
    copy->kept = g_strdup(segment->kept);
    copy->stamp = g_strdup(segment->stamp);
    copy->replica = g_strdup(segment->replica);
    copy->replicaStamp = g_strdup(segment->replicaStamp);
    virCheckpointSegmentSetNames(copy->bitmaps, segment->bitmaps);
    virCheckpointSegmentSetNames(copy->sidecars, segment->sidecars);
    virCheckpointSegmentSetNames(copy->heirs, segment->heirs);
    return copy;
}

void
virCheckpointSegmentFree(virCheckpointSegment *segment)
{
    if (!segment)
        return;
    g_free(segment->target);
    g_free(segment->born);
    g_free(segment->kept);
    g_free(segment->stamp);
    g_free(segment->replica);
    g_free(segment->replicaStamp);
    g_clear_pointer(&segment->bitmaps, g_ptr_array_unref);
    g_clear_pointer(&segment->sidecars, g_ptr_array_unref);
    g_clear_pointer(&segment->heirs, g_ptr_array_unref);
    g_free(segment);
}

virCheckpointRecord *
virCheckpointRecordNew(void)
{
    virCheckpointRecord *record = g_new0(virCheckpointRecord, 1);

    g_atomic_int_set(&record->references, 1);
    record->segments =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointSegmentFree);
    return record;
}

virCheckpointRecord *
virCheckpointRecordCopy(const virCheckpointRecord *record)
{
    virCheckpointRecord *copy = NULL;
    guint i;

    if (!record)
        return NULL;
    copy = virCheckpointRecordNew();
    copy->id = g_strdup(record->id);
    copy->state = record->state;
    copy->def = virCheckpointDefCopy(record->def);
    for (i = 0; i < record->segments->len; i++)
        g_ptr_array_add(copy->segments, virCheckpointSegmentCopy(
                                            g_ptr_array_index(record->segments, i)));
    return copy;
}

virCheckpointRecord *
virCheckpointRecordRef(const virCheckpointRecord *record)
{
    virCheckpointRecord *same = (virCheckpointRecord *)record;

    g_atomic_int_inc(&same->references);
    return same;
}

gboolean
virCheckpointRecordIsShared(const virCheckpointRecord *record)
{
    return g_atomic_int_get(&record->references) > 1;
}

void
virCheckpointRecordFree(virCheckpointRecord *record)
{
    if (!record || !g_atomic_int_dec_and_test(&record->references))
        return;
    g_free(record->id);
    virCheckpointDefFree(record->def);
    g_clear_pointer(&record->segments, g_ptr_array_unref);
    g_free(record);
}

virCheckpointSegment *
virCheckpointRecordSegment(const virCheckpointRecord *record, const gchar *target)
{
    guint i;

    for (i = 0; i < record->segments->len; i++) {
        virCheckpointSegment *segment = g_ptr_array_index(record->segments, i);

        if (g_str_equal(segment->target, target))
            return segment;
    }
    return NULL;
}

gchar *
virCheckpointRecordNewId(void)
{
    g_autofree gchar *id = g_uuid_string_random();
    gchar *to = id;
    const gchar *from = NULL;

    for (from = id; *from; from++) {
        if (*from != '-')
            *to++ = *from;
    }
    *to = '\0';
    return g_steal_pointer(&id);
}

gboolean
virCheckpointRecordIdIsGood(const gchar *id)
{
    return id && strlen(id) == 32 && strspn(id, "0123456789abcdef") == 32;
}

/* Formatting */

void
virCheckpointRecordFormatText(GString *buf, const gchar *element, const gchar *text)
{
    gboolean plain = !strstr(text, "]]>") && g_utf8_validate(text, -1, NULL);
    const gchar *p = NULL;

    /* Carriage returns would come back as line ends, other control characters never. */
    for (p = text; *p && plain; p++)
        plain = !g_ascii_iscntrl(*p) || *p == '\n' || *p == '\t';

    g_string_append_printf(buf, "  <%s>", element);
    if (!plain)
        virCheckpointXmlEscape(buf, text);
    else
        g_string_append_printf(buf, "<![CDATA[%s]]>", text);
    g_string_append_printf(buf, "</%s>\n", element);
}

static void
virCheckpointRecordFormatSegment(GString *buf, const virCheckpointSegment *segment)
{
    guint i;

    virCheckpointXmlAppend(buf,
                           "    <segment disk='%s' size='%" G_GUINT64_FORMAT
                           "' granularity='%" G_GUINT64_FORMAT "'",
                           segment->target, segment->sizeBytes, segment->granularity);
    if (segment->born)
        virCheckpointXmlAppend(buf, " born='%s'", segment->born);
    if (segment->lost)
        g_string_append(buf, " lost='yes'");
    if (segment->kept)
        virCheckpointXmlAppend(buf, " kept='%s'", segment->kept);
    if (segment->stamp)
        virCheckpointXmlAppend(buf, " stamp='%s'", segment->stamp);
    if (segment->replica && segment->replicaStamp)
        virCheckpointXmlAppend(buf, " replica='%s' replicastamp='%s'", segment->replica,
                               segment->replicaStamp);
    g_string_append(buf, ">\n");
    for (i = 0; i < segment->sidecars->len; i++)
        virCheckpointXmlAppend(buf, "      <sidecar file='%s'/>\n",
                               (const gchar *)g_ptr_array_index(segment->sidecars, i));
    for (i = 0; i < segment->bitmaps->len; i++)
        virCheckpointXmlAppend(buf, "      <bitmap name='%s'/>\n",
                               (const gchar *)g_ptr_array_index(segment->bitmaps, i));
    for (i = 0; i < segment->heirs->len; i++)
        virCheckpointXmlAppend(buf, "      <heir file='%s'/>\n",
                               (const gchar *)g_ptr_array_index(segment->heirs, i));
    g_string_append(buf, "    </segment>\n");
}

gchar *
virCheckpointRecordFormat(const virCheckpointRecord *record)
{
    GString *buf = g_string_new("<virtcheckpoint version='1'>\n");
    guint i;

    g_assert(record && record->id && record->def);
    g_assert(record->state < VIR_CHECKPOINT_RECORD_LAST);

    virCheckpointXmlAppend(buf, "  <id>%s</id>\n  <state>%s</state>\n", record->id,
                           virCheckpointRecordStates[record->state]);
    virCheckpointDefFormatInto(buf, record->def, VIR_CHECKPOINT_DEF_FORMAT_NO_DOMAIN,
                               2);
    g_string_append(buf, "  <segments>\n");
    for (i = 0; i < record->segments->len; i++)
        virCheckpointRecordFormatSegment(buf, g_ptr_array_index(record->segments, i));
    g_string_append(buf, "  </segments>\n");
    if (record->def->domain)
        virCheckpointRecordFormatText(buf, "domain", record->def->domain);
    g_string_append(buf, "</virtcheckpoint>\n");
    return g_string_free(buf, FALSE);
}

/* Parsing */

gboolean
virCheckpointRecordFail(GError **error, const gchar *what)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR, "invalid or missing %s",
                what);
    return FALSE;
}

void
virCheckpointRecordFormatParts(GString *buf, const gchar *element, GPtrArray *parts)
{
    guint i;

    for (i = 0; parts && i < parts->len; i++) {
        g_string_append_printf(buf, "  <%s", element);
        virCheckpointXmlAppend(buf, " part='%s'/>\n",
                               (const gchar *)g_ptr_array_index(parts, i));
    }
}

GPtrArray *
virCheckpointRecordParts(xmlNode *root, const gchar *xpath)
{
    GPtrArray *parts = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(root, xpath);
    guint i;

    for (i = 0; i < nodes->len; i++) {
        gchar *part = virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@part");

        if (part)
            g_ptr_array_add(parts, part);
    }
    return parts;
}

gint
virCheckpointRecordEnum(const gchar *const *names, gint last, const gchar *text)
{
    gint i;

    for (i = 0; i < last; i++) {
        if (g_strcmp0(names[i], text) == 0)
            return i;
    }
    return -1;
}

xmlDoc *
virCheckpointRecordOpen(const gchar *xml, const gchar *root, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointXmlParse(xml, "(record)", root, error);
    g_autofree gchar *version = NULL;

    if (!doc)
        return NULL;
    version = virCheckpointXmlString(xmlDocGetRootElement(doc), "./@version");
    if (g_strcmp0(version, "1") != 0) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "record has version '%s', this program knows '1'",
                    version ? version : "");
        return NULL;
    }
    return g_steal_pointer(&doc);
}

static gboolean
virCheckpointRecordParseSidecars(virCheckpointSegment *segment,
                                 xmlNode *node,
                                 GError **error)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(node, "./sidecar");
    guint i;

    for (i = 0; i < nodes->len; i++) {
        gchar *file = virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@file");

        if (file)
            g_ptr_array_add(segment->sidecars, file);
        if (!file || !*file || *file == '.' || strchr(file, '/'))
            return virCheckpointRecordFail(error, "file name of a sidecar");
    }
    return TRUE;
}

static gboolean
virCheckpointRecordParseBitmaps(virCheckpointSegment *segment,
                                xmlNode *node,
                                GError **error)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(node, "./bitmap");
    const gchar *prefix = VIR_CHECKPOINT_BITMAP_PREFIX;
    guint i;

    for (i = 0; i < nodes->len; i++) {
        gchar *name = virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@name");

        if (name)
            g_ptr_array_add(segment->bitmaps, name);
        if (!name || !g_str_has_prefix(name, prefix) ||
            !virCheckpointRecordIdIsGood(name + strlen(prefix)))
            return virCheckpointRecordFail(error, "name of a bitmap");
    }
    return TRUE;
}

static void
virCheckpointRecordParseHeirs(virCheckpointSegment *segment, xmlNode *node)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(node, "./heir");
    guint i;

    for (i = 0; i < nodes->len; i++) {
        gchar *file = virCheckpointXmlString(g_ptr_array_index(nodes, i), "./@file");

        if (file)
            g_ptr_array_add(segment->heirs, file);
    }
}

static virCheckpointSegment *
virCheckpointRecordParseSegment(xmlNode *node, GError **error)
{
    g_autofree gchar *target = virCheckpointXmlString(node, "./@disk");
    g_autofree gchar *lost = virCheckpointXmlString(node, "./@lost");
    g_autoptr(virCheckpointSegment) segment = virCheckpointSegmentNew(target);

    if (!target || !*target || strchr(target, '/')) {
        virCheckpointRecordFail(error, "disk of a segment");
        return NULL;
    }
    segment->born = virCheckpointXmlString(node, "./@born");
    segment->kept = virCheckpointXmlString(node, "./@kept");
    segment->stamp = virCheckpointXmlString(node, "./@stamp");
    segment->replica = virCheckpointXmlString(node, "./@replica");
    segment->replicaStamp = virCheckpointXmlString(node, "./@replicastamp");
    if (!virCheckpointXmlUint64(node, "./@size", &segment->sizeBytes) ||
        !virCheckpointXmlUint64(node, "./@granularity", &segment->granularity)) {
        virCheckpointRecordFail(error, "size of a segment");
        return NULL;
    }
    if (lost && !g_str_equal(lost, "yes")) {
        virCheckpointRecordFail(error, "attribute lost of a segment");
        return NULL;
    }
    segment->lost = lost != NULL;
    if (!virCheckpointRecordParseSidecars(segment, node, error) ||
        !virCheckpointRecordParseBitmaps(segment, node, error))
        return NULL;
    virCheckpointRecordParseHeirs(segment, node);
    return g_steal_pointer(&segment);
}

static gboolean
virCheckpointRecordParseSegments(virCheckpointRecord *record,
                                 xmlNode *root,
                                 GError **error)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(root, "./segments/segment");
    guint i;

    if (!virCheckpointXmlNode(root, "./segments"))
        return virCheckpointRecordFail(error, "segments");
    for (i = 0; i < nodes->len; i++) {
        g_autoptr(virCheckpointSegment) segment =
            virCheckpointRecordParseSegment(g_ptr_array_index(nodes, i), error);

        if (!segment)
            return FALSE;
        if (virCheckpointRecordSegment(record, segment->target))
            return virCheckpointRecordFail(error, "segment: two of one disk");
        g_ptr_array_add(record->segments, g_steal_pointer(&segment));
    }
    return TRUE;
}

virCheckpointRecord *
virCheckpointRecordParse(const gchar *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = virCheckpointRecordOpen(xml, "virtcheckpoint", error);
    g_autoptr(virCheckpointRecord) record = virCheckpointRecordNew();
    g_autofree gchar *state = NULL;
    g_autofree gchar *domain = NULL;
    xmlNode *root = NULL;
    xmlNode *def = NULL;
    gint number = -1;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    record->id = virCheckpointXmlString(root, "./id");
    if (!virCheckpointRecordIdIsGood(record->id)) {
        virCheckpointRecordFail(error, "id");
        return NULL;
    }
    state = virCheckpointXmlString(root, "./state");
    number = virCheckpointRecordEnum(virCheckpointRecordStates,
                                     VIR_CHECKPOINT_RECORD_LAST, state);
    def = virCheckpointXmlNode(root, "./domaincheckpoint");
    if (number < 0 || !def) {
        virCheckpointRecordFail(error, def ? "state" : "domaincheckpoint");
        return NULL;
    }
    record->state = (virCheckpointRecordState)number;
    record->def =
        virCheckpointDefParseNode(def, VIR_CHECKPOINT_DEF_PARSE_STORED, error);
    if (!record->def || !virCheckpointRecordParseSegments(record, root, error))
        return NULL;
    domain = virCheckpointXmlString(root, "./domain");
    virCheckpointDefSetDomain(record->def, domain);
    return g_steal_pointer(&record);
}
