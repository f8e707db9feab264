/*
 * virsh_options.c: the options of blockcopy, stock's and ours
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One table, in stock's order, because a word without "--" goes to the first option of
 * that order which takes a value and has none.  Ours are not part of that: a stray word
 * must not become the name of a checkpoint.  Messages are stock's (9.0).
 */

#include "config.h"

#include "virsh_options.h"

#include <string.h>

#define OPTION(name) [VIR_CHECKPOINT_VIRSH_OPTION_##name]

enum {
    VIRSH_VALUE = 1 << 0,  /* takes a value */
    VIRSH_NUMBER = 1 << 1, /* ... shown as a number */
    VIRSH_NEEDED = 1 << 2,
    VIRSH_OURS = 1 << 3,
};

static const struct {
    const gchar *name;
    guint flags;
    const gchar *help; /* ours only */
} virCheckpointVirshTable[] = {
    OPTION(DOMAIN) = {"domain", VIRSH_VALUE | VIRSH_NEEDED, NULL},
    OPTION(PATH) = {"path", VIRSH_VALUE | VIRSH_NEEDED, NULL},
    OPTION(DEST) = {"dest", VIRSH_VALUE, NULL},
    OPTION(BANDWIDTH) = {"bandwidth", VIRSH_VALUE | VIRSH_NUMBER, NULL},
    OPTION(SHALLOW) = {"shallow", 0, NULL},
    OPTION(REUSE_EXTERNAL) = {"reuse-external", 0, NULL},
    OPTION(RAW) = {"raw", 0, NULL},
    OPTION(BLOCKDEV) = {"blockdev", 0, NULL},
    OPTION(WAIT) = {"wait", 0, NULL},
    OPTION(VERBOSE) = {"verbose", 0, NULL},
    OPTION(TIMEOUT) = {"timeout", VIRSH_VALUE | VIRSH_NUMBER, NULL},
    OPTION(PIVOT) = {"pivot", 0, NULL},
    OPTION(FINISH) = {"finish", 0, NULL},
    OPTION(ASYNC) = {"async", 0, NULL},
    OPTION(XML) = {"xml", VIRSH_VALUE, NULL},
    OPTION(FORMAT) = {"format", VIRSH_VALUE, NULL},
    OPTION(GRANULARITY) = {"granularity", VIRSH_VALUE | VIRSH_NUMBER, NULL},
    OPTION(BUF_SIZE) = {"buf-size", VIRSH_VALUE | VIRSH_NUMBER, NULL},
    OPTION(BYTES) = {"bytes", 0, NULL},
    OPTION(TRANSIENT_JOB) = {"transient-job", 0, NULL},
    OPTION(SYNCHRONOUS_WRITES) = {"synchronous-writes", 0, NULL},
    OPTION(PRINT_XML) = {"print-xml", 0, NULL},
    OPTION(BITMAP) = {"bitmap", VIRSH_VALUE | VIRSH_OURS,
                      "copy only what changed since this checkpoint; "
                      "needs --reuse-external"},
    OPTION(CHECKPOINT) = {"checkpoint", VIRSH_VALUE | VIRSH_OURS,
                          "create this checkpoint, of the moment the copy stands for"},
    OPTION(VERIFY) = {"verify", VIRSH_OURS,
                      "compare target and disk before --finish succeeds"},
    OPTION(END_CHECKPOINTS) = {"end-checkpoints", VIRSH_OURS,
                               "--pivot may move to a target without bitmaps"},
};
G_STATIC_ASSERT(G_N_ELEMENTS(virCheckpointVirshTable) ==
                VIR_CHECKPOINT_VIRSH_OPTION_LAST);

/* The words still to be read, and how. */
typedef struct {
    virCheckpointVirshOptions *options;
    const gchar *const *next;
    gboolean dataOnly; /* after "--" */
} virCheckpointVirshReader;

static gint
virCheckpointVirshOptionsFind(const gchar *name)
{
    gint i;

    for (i = 0; i < VIR_CHECKPOINT_VIRSH_OPTION_LAST; i++) {
        if (g_str_equal(virCheckpointVirshTable[i].name, name))
            return i;
    }
    return -1;
}

/* --raw is stock's other name for --format=raw. */
static gchar *
virCheckpointVirshOptionsSet(virCheckpointVirshOptions *options,
                             gint option,
                             const gchar *value)
{
    if (option == VIR_CHECKPOINT_VIRSH_OPTION_RAW) {
        option = VIR_CHECKPOINT_VIRSH_OPTION_FORMAT;
        value = "raw";
    }
    if (options->values[option])
        return g_strdup_printf("option --%s already seen",
                               virCheckpointVirshTable[option].name);
    options->values[option] = g_strdup(value);
    return NULL;
}

static gchar *
virCheckpointVirshOptionsNamed(virCheckpointVirshReader *reader, const gchar *word)
{
    const gchar *equals = strchr(word, '=');
    g_autofree gchar *name = NULL;
    const gchar *value = equals ? equals + 1 : NULL;
    gint option;
    guint flags;

    name =
        equals ? g_strndup(word + 2, (gsize)(equals - word - 2)) : g_strdup(word + 2);
    if ((option = virCheckpointVirshOptionsFind(name)) < 0)
        return g_strdup_printf("command 'blockcopy' doesn't support option --%s", name);
    flags = virCheckpointVirshTable[option].flags;
    if (flags & VIRSH_OURS)
        reader->options->ours = TRUE;
    if (!(flags & VIRSH_VALUE)) {
        if (value)
            return g_strdup_printf("invalid '=' after option --%s", name);
        return virCheckpointVirshOptionsSet(reader->options, option, "");
    }
    if (!value) {
        if (!*reader->next)
            return g_strdup_printf("expected syntax: --%s <%s>", name,
                                   flags & VIRSH_NUMBER ? "number" : "string");
        value = *reader->next++;
    }
    return virCheckpointVirshOptionsSet(reader->options, option, value);
}

static gchar *
virCheckpointVirshOptionsData(virCheckpointVirshReader *reader, const gchar *word)
{
    gint i;

    for (i = 0; i < VIR_CHECKPOINT_VIRSH_OPTION_LAST; i++) {
        guint flags = virCheckpointVirshTable[i].flags;

        if ((flags & VIRSH_VALUE) && !(flags & VIRSH_OURS) &&
            !reader->options->values[i])
            return virCheckpointVirshOptionsSet(reader->options, i, word);
    }
    return g_strdup_printf("unexpected data '%s'", word);
}

static gchar *
virCheckpointVirshOptionsWord(virCheckpointVirshReader *reader)
{
    const gchar *word = *reader->next++;

    if (reader->dataOnly)
        return virCheckpointVirshOptionsData(reader, word);
    if (g_str_equal(word, "--")) {
        reader->dataOnly = TRUE;
        return NULL;
    }
    if (g_str_equal(word, "--help")) {
        reader->options->help = TRUE;
        return NULL;
    }
    if (g_str_has_prefix(word, "--") && g_ascii_isalnum(word[2]))
        return virCheckpointVirshOptionsNamed(reader, word);
    return virCheckpointVirshOptionsData(reader, word);
}

static gchar *
virCheckpointVirshOptionsMissing(const virCheckpointVirshOptions *options)
{
    GString *text = g_string_new(NULL);
    gint i;

    for (i = 0; i < VIR_CHECKPOINT_VIRSH_OPTION_LAST; i++) {
        if ((virCheckpointVirshTable[i].flags & VIRSH_NEEDED) && !options->values[i])
            g_string_append_printf(text, "%scommand 'blockcopy' requires <%s> option",
                                   text->len ? "\n" : "",
                                   virCheckpointVirshTable[i].name);
    }
    return g_string_free(text, text->len == 0);
}

virCheckpointVirshOptions *
virCheckpointVirshOptionsParse(const gchar *const *words)
{
    g_autoptr(virCheckpointVirshOptions) options = g_new0(virCheckpointVirshOptions, 1);
    virCheckpointVirshReader reader = {options, words, FALSE};

    while (*reader.next && !options->help) {
        g_autofree gchar *message = virCheckpointVirshOptionsWord(&reader);

        if (message && !options->message)
            options->message = g_steal_pointer(&message);
        if (options->message && options->ours)
            break;
    }
    if (options->message)
        options->help = FALSE;
    else if (!options->help)
        options->message = virCheckpointVirshOptionsMissing(options);
    return g_steal_pointer(&options);
}

void
virCheckpointVirshOptionsFree(virCheckpointVirshOptions *options)
{
    gint i;

    if (!options)
        return;
    for (i = 0; i < VIR_CHECKPOINT_VIRSH_OPTION_LAST; i++)
        g_free(options->values[i]);
    g_free(options->message);
    g_free(options);
}

const gchar *
virCheckpointVirshOptionsGet(const virCheckpointVirshOptions *options,
                             virCheckpointVirshOption option)
{
    return options->values[option];
}

gboolean
virCheckpointVirshOptionsHas(const virCheckpointVirshOptions *options,
                             virCheckpointVirshOption option)
{
    return options->values[option] != NULL;
}

/* Appends our options to the synopsis (@inList FALSE) or to the list of options; not
 * those that the text has already. */
static void
virCheckpointVirshOptionsMergeOurs(GString *out, const gchar *text, gboolean inList)
{
    gint i;

    for (i = 0; i < VIR_CHECKPOINT_VIRSH_OPTION_LAST; i++) {
        const gchar *name = virCheckpointVirshTable[i].name;
        gboolean value = (virCheckpointVirshTable[i].flags & VIRSH_VALUE) != 0;
        g_autofree gchar *word = g_strdup_printf("--%s ", name);
        g_autofree gchar *shown =
            g_strdup_printf("--%s%s", name, value ? " <string>" : "");

        if (!(virCheckpointVirshTable[i].flags & VIRSH_OURS) || strstr(text, word))
            continue;
        if (inList)
            g_string_append_printf(out, "\n    %-15s  %s", shown,
                                   virCheckpointVirshTable[i].help);
        else
            g_string_append_printf(out, " [%s]", shown);
    }
}

/* "blockcopy <domain> ...", in other versions "blockcopy [--domain] <string> ...", but
 * not "blockcopy - Start a block copy operation." */
static gboolean
virCheckpointVirshOptionsIsSynopsis(const gchar *line)
{
    line += strspn(line, " ");
    return g_str_has_prefix(line, "blockcopy <") ||
           g_str_has_prefix(line, "blockcopy [");
}

gchar *
virCheckpointVirshOptionsMergeHelp(const gchar *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *out = g_string_new(NULL);
    gsize last = g_strv_length(lines);
    gsize i;

    while (last > 0 && !*lines[last - 1])
        last--;
    for (i = 0; lines[i]; i++) {
        g_string_append(out, lines[i]);
        if (virCheckpointVirshOptionsIsSynopsis(lines[i]))
            virCheckpointVirshOptionsMergeOurs(out, text, FALSE);
        if (i + 1 == last)
            virCheckpointVirshOptionsMergeOurs(out, text, TRUE);
        if (lines[i + 1])
            g_string_append_c(out, '\n');
    }
    return g_string_free(out, FALSE);
}
