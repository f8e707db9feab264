/*
 * checkpoint_def.c: <domaincheckpoint> XML <-> struct
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a client reads and writes of a checkpoint is libvirt's format: this file accepts
 * what libvirt 9.0 accepts (it validates every checkpoint against its schema, so names,
 * unknown elements and double elements are refused with VIR_ERR_XML_INVALID_SCHEMA) and
 * prints the same bytes.  A checkpoint read from its own output is equal to itself.
 *
 * The <domain> of a checkpoint is kept as text.  Inside <domaincheckpoint> it stands
 * two columns further right; only line ends between two tags get that indent, those in
 * descriptions and other text are part of the text, as in libvirt.
 */

#include "config.h"

#include "checkpoint_def.h"

#include "checkpoint_defpriv.h"
#include "checkpoint_error.h"

#include <string.h>

/* Names travel: into files of other tools, node names, logs.  What is longer than this
 * one of them refuses some day, after the checkpoint was made. */
#define VIR_CHECKPOINT_DEF_MAX_NAME_BYTES 200

virCheckpointDiskDef *
virCheckpointDiskDefNew(const gchar *name, virCheckpointDiskType type)
{
    virCheckpointDiskDef *disk = g_new0(virCheckpointDiskDef, 1);

    disk->name = g_strdup(name);
    disk->type = type;
    return disk;
}

void
virCheckpointDiskDefFree(virCheckpointDiskDef *disk)
{
    if (!disk)
        return;
    g_free(disk->name);
    g_free(disk->bitmap);
    g_free(disk);
}

static gpointer
virCheckpointDiskDefCopy(gconstpointer src, gpointer opaque)
{
    const virCheckpointDiskDef *disk = src;
    virCheckpointDiskDef *copy = virCheckpointDiskDefNew(disk->name, disk->type);

    copy->bitmap = g_strdup(disk->bitmap);
    copy->hasSize = disk->hasSize;
    copy->sizeBytes = disk->sizeBytes;
    return copy;
}

virCheckpointDef *
virCheckpointDefNew(void)
{
    return g_new0(virCheckpointDef, 1);
}

virCheckpointDef *
virCheckpointDefCopy(const virCheckpointDef *def)
{
    virCheckpointDef *copy = NULL;
    gsize i;

    if (!def)
        return NULL;
    copy = virCheckpointDefNew();
    copy->name = g_strdup(def->name);
    copy->description = g_strdup(def->description);
    copy->parent = g_strdup(def->parent);
    copy->creationTime = def->creationTime;
    copy->domain = def->domain ? g_ref_string_acquire(def->domain) : NULL;
    copy->domainInactive = def->domainInactive;
    if (def->disks) {
        copy->disks =
            g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskDefFree);
        for (i = 0; i < def->disks->len; i++)
            g_ptr_array_add(copy->disks, virCheckpointDiskDefCopy(
                                             g_ptr_array_index(def->disks, i), NULL));
    }
    return copy;
}

void
virCheckpointDefFree(virCheckpointDef *def)
{
    if (!def)
        return;
    g_free(def->name);
    g_free(def->description);
    g_free(def->parent);
    g_clear_pointer(&def->disks, g_ptr_array_unref);
    g_clear_pointer(&def->domain, g_ref_string_release);
    g_free(def);
}

void
virCheckpointDefSetDomain(virCheckpointDef *def, const gchar *text)
{
    GRefString *domain = text ? g_ref_string_new(text) : NULL;

    g_clear_pointer(&def->domain, g_ref_string_release);
    def->domain = domain;
}

/* Names */

/* What libvirt's schema says of a name; no such name can be or leave a path. */
static gboolean
virCheckpointDefNameIsGood(const gchar *name)
{
    const gchar *p = NULL;

    if (!*name || *name == '.' || strlen(name) > VIR_CHECKPOINT_DEF_MAX_NAME_BYTES)
        return FALSE;
    for (p = name; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("_-.", *p))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointDefCheckNameAs(const gchar *name, gint code, GError **error)
{
    g_autofree gchar *start = NULL;
    g_autofree gchar *shown = NULL;

    if (virCheckpointDefNameIsGood(name))
        return TRUE;
    start = g_strndup(name, 64);
    shown = g_strescape(start, NULL);
    g_set_error(
        error, VIR_CHECKPOINT_ERROR, code,
        "checkpoint name '%s'%s is not 1 to %d letters, digits, '_', '-' and '.' "
        "without '.' in front",
        shown, strlen(name) > strlen(start) ? "..." : "",
        VIR_CHECKPOINT_DEF_MAX_NAME_BYTES);
    return FALSE;
}

gboolean
virCheckpointDefCheckName(const gchar *name, GError **error)
{
    g_assert(name);
    return virCheckpointDefCheckNameAs(name, VIR_ERR_INVALID_ARG, error);
}

/* The schema */

static gboolean
virCheckpointDefInvalid(const gchar *element, const gchar *reason, GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_INVALID_SCHEMA,
                "Element %s %s", element, reason);
    return FALSE;
}

static gboolean
virCheckpointDefHasName(const xmlNode *node, const gchar *name)
{
    return node->type == XML_ELEMENT_NODE && !node->ns &&
           g_str_equal((const gchar *)node->name, name);
}

/* Contents of @node: elements of @allowed only, each once unless @many. */
static gboolean
virCheckpointDefCheckChildren(const xmlNode *node,
                              const gchar *const *allowed,
                              gboolean many,
                              GError **error)
{
    const gchar *name = (const gchar *)node->name;
    const xmlNode *child = NULL;
    guint seen = 0;
    guint i;

    for (child = node->children; child; child = child->next) {
        g_autofree gchar *reason = NULL;

        if (child->type == XML_COMMENT_NODE || child->type == XML_PI_NODE)
            continue;
        if (child->type != XML_ELEMENT_NODE) {
            if (xmlIsBlankNode(child))
                continue;
            return virCheckpointDefInvalid(name, "has extra content: text", error);
        }
        for (i = 0; allowed[i] && !virCheckpointDefHasName(child, allowed[i]);)
            i++;
        if (!allowed[i] || (!many && (seen & (1U << i)))) {
            g_autofree gchar *right = g_strjoinv(", ", (gchar **)allowed);

            reason = g_strdup_printf(
                "has extra content: %s; right is %s%s%s", (const gchar *)child->name,
                *allowed ? right : "nothing inside", *allowed ? ", each " : "",
                !*allowed ? ""
                : many    ? "any number"
                          : "once");
            return virCheckpointDefInvalid(name, reason, error);
        }
        seen |= 1U << i;
    }
    if (many && seen == 0)
        return virCheckpointDefInvalid(name, "failed to validate content", error);
    return TRUE;
}

static gboolean
virCheckpointDefAttributeInvalid(const xmlNode *node,
                                 const xmlAttr *attr,
                                 const gchar *const *allowed,
                                 GError **error)
{
    g_autofree gchar *right = g_strjoinv(", ", (gchar **)allowed);
    g_autofree gchar *reason =
        g_strdup_printf("failed to validate attributes: %s; right is %s",
                        (const gchar *)attr->name, *allowed ? right : "none");

    return virCheckpointDefInvalid((const gchar *)node->name, reason, error);
}

static gboolean
virCheckpointDefCheckAttributes(const xmlNode *node,
                                const gchar *const *allowed,
                                GError **error)
{
    const xmlAttr *attr = NULL;

    for (attr = node->properties; attr; attr = attr->next) {
        if (attr->ns || !g_strv_contains(allowed, (const gchar *)attr->name))
            return virCheckpointDefAttributeInvalid(node, attr, allowed, error);
    }
    return TRUE;
}

/* The elements inside @node have no contents but text and attributes of @allowed. */
static gboolean
virCheckpointDefCheckLeaves(const xmlNode *node,
                            const gchar *const *allowed,
                            GError **error)
{
    static const gchar *const none[] = {NULL};
    const xmlNode *leaf = NULL;

    for (leaf = node->children; leaf; leaf = leaf->next) {
        if (leaf->type != XML_ELEMENT_NODE)
            continue;
        if (!virCheckpointDefCheckAttributes(leaf, allowed, error))
            return FALSE;
        /* Text is right in a name, which has no attributes, and wrong in a disk. */
        if (xmlChildElementCount((xmlNode *)leaf) > 0)
            return virCheckpointDefInvalid((const gchar *)leaf->name,
                                           "failed to validate content", error);
        if (*allowed && !virCheckpointDefCheckChildren(leaf, none, FALSE, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
virCheckpointDefCheckShape(xmlNode *root, GError **error)
{
    static const gchar *const none[] = {NULL};
    static const gchar *const top[] = {"name",  "description", "parent", "creationTime",
                                       "disks", "domain",      NULL};
    static const gchar *const parent[] = {"name", NULL};
    static const gchar *const disks[] = {"disk", NULL};
    static const gchar *const disk[] = {"name", "checkpoint", "bitmap", "size", NULL};
    xmlNode *node = NULL;

    if (!virCheckpointDefCheckAttributes(root, none, error) ||
        !virCheckpointDefCheckChildren(root, top, FALSE, error))
        return FALSE;
    for (node = root->children; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE || virCheckpointDefHasName(node, "domain"))
            continue;
        if (!virCheckpointDefCheckAttributes(node, none, error))
            return FALSE;
        if (virCheckpointDefHasName(node, "parent")) {
            if (!virCheckpointDefCheckChildren(node, parent, FALSE, error) ||
                !virCheckpointDefCheckLeaves(node, none, error))
                return FALSE;
        } else if (virCheckpointDefHasName(node, "disks")) {
            if (!virCheckpointDefCheckChildren(node, disks, TRUE, error) ||
                !virCheckpointDefCheckLeaves(node, disk, error))
                return FALSE;
        } else if (xmlChildElementCount(node) > 0) {
            return virCheckpointDefInvalid((const gchar *)node->name,
                                           "failed to validate content", error);
        }
    }
    return TRUE;
}

/* Parsing */

/* A target ("vda") or an absolute path, as in libvirt's schema. */
static gboolean
virCheckpointDefDiskNameIsGood(const gchar *name)
{
    static const gchar *const prefixes[] = {"fd", "hd", "sd", "vd", "xvd", "ubd"};
    const gchar *p = NULL;
    gsize i;

    if (*name == '/')
        return name[1] != '\0';
    for (i = 0; i < G_N_ELEMENTS(prefixes); i++) {
        if (!g_str_has_prefix(name, prefixes[i]))
            continue;
        for (p = name + strlen(prefixes[i]); g_ascii_isalnum(*p) || *p == '_';)
            p++;
        if (!*p && p > name + strlen(prefixes[i]))
            return TRUE;
    }
    return FALSE;
}

static virCheckpointDiskDef *
virCheckpointDefParseDisk(xmlNode *node, GError **error)
{
    g_autofree gchar *name = virCheckpointXmlString(node, "./@name");
    g_autofree gchar *type = virCheckpointXmlString(node, "./@checkpoint");
    g_autofree gchar *size = virCheckpointXmlString(node, "./@size");
    g_autoptr(virCheckpointDiskDef) disk = NULL;

    if (!name || !virCheckpointDefDiskNameIsGood(name)) {
        virCheckpointDefInvalid(
            "disk",
            "has no valid attribute name: a target such as 'vda', or an absolute path",
            error);
        return NULL;
    }
    disk = virCheckpointDiskDefNew(name, VIR_CHECKPOINT_DISK_DEFAULT);
    disk->bitmap = virCheckpointXmlString(node, "./@bitmap");
    if (g_strcmp0(type, "no") == 0) {
        disk->type = VIR_CHECKPOINT_DISK_NONE;
    } else if (g_strcmp0(type, "bitmap") == 0) {
        disk->type = VIR_CHECKPOINT_DISK_BITMAP;
    } else if (type) {
        virCheckpointDefInvalid(
            "disk", "has no valid attribute checkpoint: 'bitmap' or 'no'", error);
        return NULL;
    }
    if (size) {
        if (!virCheckpointXmlUint64(node, "./@size", &disk->sizeBytes)) {
            virCheckpointDefInvalid("disk", "has no valid attribute size: bytes",
                                    error);
            return NULL;
        }
        disk->hasSize = TRUE;
    }
    if (disk->type == VIR_CHECKPOINT_DISK_NONE && (disk->bitmap || disk->hasSize)) {
        virCheckpointDefInvalid(
            "disk", "with checkpoint='no' has attributes of a bitmap", error);
        return NULL;
    }
    return g_steal_pointer(&disk);
}

static gboolean
virCheckpointDefParseDisks(virCheckpointDef *def, xmlNode *root, GError **error)
{
    g_autoptr(GPtrArray) nodes = virCheckpointXmlNodes(root, "./disks/disk");
    virCheckpointDiskDef *disk = NULL;
    gsize i;

    if (nodes->len == 0)
        return TRUE;
    def->disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointDiskDefFree);
    for (i = 0; i < nodes->len; i++) {
        disk = virCheckpointDefParseDisk(g_ptr_array_index(nodes, i), error);
        if (!disk)
            return FALSE;
        g_ptr_array_add(def->disks, disk);
    }
    return TRUE;
}

static gboolean
virCheckpointDefParseParent(virCheckpointDef *def, xmlNode *root, GError **error)
{
    g_autofree gchar *parent = virCheckpointXmlString(root, "./parent/name");

    if (!parent && virCheckpointXmlNode(root, "./parent"))
        return virCheckpointDefInvalid("parent", "failed to validate content", error);
    if (!parent)
        return TRUE;
    if (!virCheckpointDefCheckNameAs(parent, VIR_ERR_XML_INVALID_SCHEMA, error))
        return FALSE;
    def->parent = g_steal_pointer(&parent);
    return TRUE;
}

static gboolean
virCheckpointDefParseTime(virCheckpointDef *def,
                          xmlNode *root,
                          guint flags,
                          GError **error)
{
    g_autofree gchar *text = virCheckpointXmlString(root, "./creationTime");
    guint64 seconds = 0;

    if (!text) {
        if (!(flags & VIR_CHECKPOINT_DEF_PARSE_REDEFINE))
            return TRUE;
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR,
                    "missing creationTime from existing checkpoint");
        return FALSE;
    }
    if (!virCheckpointXmlUint64(root, "./creationTime", &seconds) ||
        seconds > G_MAXINT64)
        return virCheckpointDefInvalid("creationTime", "failed to validate content",
                                       error);
    if (flags)
        def->creationTime = (gint64)seconds;
    return TRUE;
}

virCheckpointDef *
virCheckpointDefParseNode(xmlNode *root, guint flags, GError **error)
{
    g_autoptr(virCheckpointDef) def = virCheckpointDefNew();
    xmlNode *domain = NULL;

    if (!virCheckpointDefCheckShape(root, error))
        return NULL;

    def->name = virCheckpointXmlString(root, "./name");
    if (def->name &&
        !virCheckpointDefCheckNameAs(def->name, VIR_ERR_XML_INVALID_SCHEMA, error))
        return NULL;
    if (!def->name && flags) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "a redefined checkpoint must have a name");
        return NULL;
    }
    /* Libvirt takes an empty description for none. */
    def->description = virCheckpointXmlString(root, "string(./description)");
    if (!virCheckpointDefParseTime(def, root, flags, error) ||
        !virCheckpointDefParseParent(def, root, error) ||
        !virCheckpointDefParseDisks(def, root, error))
        return NULL;
    if (!flags)
        g_clear_pointer(&def->parent, g_free);

    domain = virCheckpointXmlNode(root, "./domain");
    if (domain && (flags & VIR_CHECKPOINT_DEF_PARSE_REDEFINE)) {
        g_autofree gchar *text = virCheckpointXmlNodeText(domain);

        virCheckpointDefSetDomain(def, text);
    }
    return g_steal_pointer(&def);
}

virCheckpointDef *
virCheckpointDefParse(const gchar *xml, guint flags, GError **error)
{
    g_autoptr(xmlDoc) doc = NULL;
    xmlNode *root = NULL;

    g_assert(xml);

    doc = virCheckpointXmlParse(xml, "(domain_checkpoint)", NULL, error);
    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    if (!virCheckpointDefHasName(root, "domaincheckpoint")) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR,
                    "expecting root element of 'domaincheckpoint', not '%s'",
                    (const gchar *)root->name);
        return NULL;
    }
    return virCheckpointDefParseNode(root, flags, error);
}

/* Formatting */

/* Appends @text with @indent more columns where a line begins with a tag after one. */
static void
virCheckpointDefIndentText(GString *buf, const gchar *text, guint indent)
{
    const gchar *p = NULL;
    gchar last = '>'; /* the last character that is no white space */

    g_string_append_printf(buf, "%*s", (int)indent, "");
    for (p = text; *p; p++) {
        if (*p != '\n') {
            if (!g_ascii_isspace(*p))
                last = *p;
            g_string_append_c(buf, *p);
            continue;
        }
        g_string_append_c(buf, '\n');
        if (last == '>' && p[1 + strspn(p + 1, " \t\r\n")] == '<' && p[1] != '\n')
            g_string_append_printf(buf, "%*s", (int)indent, "");
    }
    if (buf->str[buf->len - 1] != '\n')
        g_string_append_c(buf, '\n');
}

static void
virCheckpointDefFormatDisk(GString *buf,
                           const virCheckpointDiskDef *disk,
                           guint flags,
                           gint indent)
{
    g_string_append_printf(buf, "%*s", indent, "");
    virCheckpointXmlAppend(buf, "<disk name='%s'", disk->name);
    if (disk->type == VIR_CHECKPOINT_DISK_NONE)
        g_string_append(buf, " checkpoint='no'");
    else if (disk->type == VIR_CHECKPOINT_DISK_BITMAP)
        g_string_append(buf, " checkpoint='bitmap'");
    if (disk->bitmap) {
        virCheckpointXmlAppend(buf, " bitmap='%s'", disk->bitmap);
        if ((flags & VIR_CHECKPOINT_DEF_FORMAT_SIZE) && disk->hasSize)
            virCheckpointXmlAppend(buf, " size='%" G_GUINT64_FORMAT "'",
                                   disk->sizeBytes);
    }
    g_string_append(buf, "/>\n");
}

static void
virCheckpointDefFormatText(GString *buf,
                           const gchar *element,
                           const gchar *text,
                           gint indent)
{
    g_string_append_printf(buf, "%*s<%s>", indent, "", element);
    virCheckpointXmlEscape(buf, text);
    g_string_append_printf(buf, "</%s>\n", element);
}

void
virCheckpointDefFormatInto(GString *buf,
                           const virCheckpointDef *def,
                           guint flags,
                           guint indent)
{
    const gint outer = (gint)indent;
    const gint inner = outer + 2;
    gsize i;

    g_string_append_printf(buf, "%*s<domaincheckpoint>\n", outer, "");
    if (def->name)
        virCheckpointDefFormatText(buf, "name", def->name, inner);
    if (def->description)
        virCheckpointDefFormatText(buf, "description", def->description, inner);
    if (def->parent) {
        g_string_append_printf(buf, "%*s<parent>\n", inner, "");
        virCheckpointDefFormatText(buf, "name", def->parent, inner + 2);
        g_string_append_printf(buf, "%*s</parent>\n", inner, "");
    }
    if (def->creationTime)
        g_string_append_printf(buf,
                               "%*s<creationTime>%" G_GINT64_FORMAT "</creationTime>\n",
                               inner, "", def->creationTime);
    if (def->disks && def->disks->len > 0) {
        g_string_append_printf(buf, "%*s<disks>\n", inner, "");
        for (i = 0; i < def->disks->len; i++)
            virCheckpointDefFormatDisk(buf, g_ptr_array_index(def->disks, i), flags,
                                       inner + 2);
        g_string_append_printf(buf, "%*s</disks>\n", inner, "");
    }
    if (def->domain && !(flags & VIR_CHECKPOINT_DEF_FORMAT_NO_DOMAIN))
        virCheckpointDefIndentText(buf, def->domain, (guint)inner);
    g_string_append_printf(buf, "%*s</domaincheckpoint>\n", outer, "");
}

gchar *
virCheckpointDefFormat(const virCheckpointDef *def, guint flags)
{
    GString *buf = g_string_new(NULL);

    g_assert(def);
    virCheckpointDefFormatInto(buf, def, flags, 0);
    return g_string_free(buf, FALSE);
}
