/*
 * virsh_args.c: the command line as stock virsh reads it
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Stock virsh has three shapes of command line: no command (interactive), exactly one
 * word (a string of commands, with quotes, ';' and comments) and several words (one
 * command, taken as they are).  Only the third can be ours: in a string our command
 * would have to run between two of stock's, on two connections, with one exit status.
 *
 * Whatever is not understood here is left to stock, arguments unchanged, so that its
 * messages and its newer options keep working.
 */

#include "config.h"

#include "virsh_args.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "virsh_check.h"
#include "virsh_options.h"

static const struct option virCheckpointVirshLongOptions[] = {
    {"connect", required_argument, NULL, 'c'},
    {"debug", required_argument, NULL, 'd'},
    {"escape", required_argument, NULL, 'e'},
    {"help", no_argument, NULL, 'h'},
    {"keepalive-interval", required_argument, NULL, 'k'},
    {"keepalive-count", required_argument, NULL, 'K'},
    {"log", required_argument, NULL, 'l'},
    {"quiet", no_argument, NULL, 'q'},
    {"readonly", no_argument, NULL, 'r'},
    {"timing", no_argument, NULL, 't'},
    {"version", optional_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

/* Commands that stock runs without opening a connection, or that only say or change
 * where it is opened. */
static const gchar *const virCheckpointVirshLocal[] = {
    "cd",  "complete", "connect", "echo",      "exit", "help",
    "pwd", "quit",     "uri",     "self-test", NULL,
};

static gboolean
virCheckpointVirshArgsNumber(const gchar *text, gint *out)
{
    gchar *end = NULL;
    glong number;

    errno = 0;
    number = strtol(text, &end, 0);
    if (errno || end == text || *end || number < 0 || number > G_MAXINT)
        return FALSE;
    *out = (gint)number;
    return TRUE;
}

/* The value of -c may be an argument of its own or the tail of one (-cURI,
 * --connect=URI, -qcURI): find it by its address. */
static void
virCheckpointVirshArgsNoteUri(virCheckpointVirshArgs *args, const gchar *value)
{
    gint i;

    for (i = 1; i < args->argc; i++) {
        const gchar *arg = args->argv[i];

        if (value >= arg && value <= arg + strlen(arg)) {
            args->uriIndex = i;
            args->uriOffset = (gsize)(value - arg);
        }
    }
}

static gboolean
virCheckpointVirshArgsOption(virCheckpointVirshArgs *args, int option)
{
    gint number;

    switch (option) {
    case 'c':
        virCheckpointVirshArgsNoteUri(args, optarg);
        return TRUE;
    case 'd':
        return virCheckpointVirshArgsNumber(optarg, &number);
    case 'e':
        return strlen(optarg) == 1 || (strlen(optarg) == 2 && optarg[0] == '^');
    case 'k':
        return virCheckpointVirshArgsNumber(optarg, &args->keepaliveInterval);
    case 'K':
        return virCheckpointVirshArgsNumber(optarg, &args->keepaliveCount);
    case 'l':
        args->logFile = optarg;
        return TRUE;
    case 'q':
        args->quiet = TRUE;
        return TRUE;
    case 'r':
        args->readonly = TRUE;
        return TRUE;
    case 't':
        args->timing = TRUE;
        return TRUE;
    default: /* -h, -v, -V, unknown, value missing */
        return FALSE;
    }
}

void
virCheckpointVirshArgsParse(int argc, gchar **argv, virCheckpointVirshArgs *args)
{
    g_autofree gchar **copy = g_new0(gchar *, (gsize)argc + 1);
    int option;

    memset(args, 0, sizeof(*args));
    args->argc = argc;
    args->argv = argv;
    args->uriIndex = -1;
    args->keepaliveInterval = -1;
    args->keepaliveCount = -1;

    memcpy(copy, argv, (gsize)argc * sizeof(*copy));
    optind = 0;
    opterr = 0;
    while (!args->asIs &&
           (option = getopt_long(argc, copy, "+:c:d:e:hk:K:l:qrtvV",
                                 virCheckpointVirshLongOptions, NULL)) != -1)
        args->asIs = !virCheckpointVirshArgsOption(args, option);
    args->first = optind;
}

const gchar *
virCheckpointVirshArgsUri(const virCheckpointVirshArgs *args)
{
    if (args->uriIndex < 0)
        return NULL;
    return args->argv[args->uriIndex] + args->uriOffset;
}

gchar **
virCheckpointVirshArgsWithUri(const virCheckpointVirshArgs *args, const gchar *uri)
{
    GPtrArray *words = g_ptr_array_new();
    gint i;

    for (i = 0; i < args->argc; i++) {
        if (uri && i == args->uriIndex)
            g_ptr_array_add(words, g_strdup_printf("%.*s%s", (int)args->uriOffset,
                                                   args->argv[i], uri));
        else
            g_ptr_array_add(words, g_strdup(args->argv[i]));
    }
    g_ptr_array_add(words, NULL);
    return (gchar **)g_ptr_array_free(words, FALSE);
}

/* Appends to @word what a quoted part holds; returns its last character's position, or
 * NULL if the quote is not closed. */
static const gchar *
virCheckpointVirshArgsQuoted(const gchar *p, GString *word)
{
    gchar quote = *p++;

    for (; *p && *p != quote; p++) {
        if (quote == '"' && *p == '\\' && p[1])
            p++;
        g_string_append_c(word, *p);
    }
    return *p ? p : NULL;
}

static void
virCheckpointVirshArgsEndWord(GPtrArray *words, GString **word)
{
    if (*word)
        g_ptr_array_add(words, g_string_free(*word, FALSE));
    *word = NULL;
}

static void
virCheckpointVirshArgsEndCommand(GPtrArray *commands, GPtrArray *words)
{
    gchar **copy;

    if (words->len == 0)
        return;
    g_ptr_array_add(words, NULL);
    copy = g_strdupv((gchar **)words->pdata);
    g_ptr_array_add(commands, copy);
    g_ptr_array_set_size(words, 0);
}

GPtrArray *
virCheckpointVirshArgsSplit(const gchar *text)
{
    g_autoptr(GPtrArray) commands = NULL;
    g_autoptr(GPtrArray) words = g_ptr_array_new_with_free_func(g_free);
    GString *word = NULL;
    const gchar *p;

    commands = g_ptr_array_new_with_free_func((GDestroyNotify)g_strfreev);
    for (p = text; p && *p; p++) {
        if (*p == ' ' || *p == '\t') {
            virCheckpointVirshArgsEndWord(words, &word);
        } else if (*p == ';' || *p == '\n') {
            virCheckpointVirshArgsEndWord(words, &word);
            virCheckpointVirshArgsEndCommand(commands, words);
        } else if (*p == '#' && !word) {
            p += strcspn(p, "\n") - 1;
        } else {
            if (!word)
                word = g_string_new(NULL);
            if (*p == '\'' || *p == '"') {
                if (!(p = virCheckpointVirshArgsQuoted(p, word)))
                    break;
            } else {
                if (*p == '\\' && p[1])
                    p++;
                g_string_append_c(word, *p);
            }
        }
    }
    virCheckpointVirshArgsEndWord(words, &word);
    virCheckpointVirshArgsEndCommand(commands, words);
    return p ? g_steal_pointer(&commands) : NULL;
}

static gboolean
virCheckpointVirshArgsAsksHelp(gchar **words)
{
    gsize i;

    for (i = 1; words[i] && !g_str_equal(words[i], "--"); i++) {
        if (g_str_equal(words[i], "--help"))
            return TRUE;
    }
    return FALSE;
}

/* The command that "help" is asked of, or NULL. */
static const gchar *
virCheckpointVirshArgsHelpTopic(gchar **words)
{
    if (!words[1])
        return NULL;
    if (g_str_equal(words[1], "--command"))
        return words[2];
    return g_str_has_prefix(words[1], "--command=") ? strchr(words[1], '=') + 1
                                                    : words[1];
}

static virCheckpointVirshCommand
virCheckpointVirshArgsClassifyOne(gchar **words)
{
    if (g_str_equal(words[0], "help")) {
        const gchar *topic = virCheckpointVirshArgsHelpTopic(words);

        if (g_strcmp0(topic, "blockcopy") == 0)
            return VIR_CHECKPOINT_VIRSH_COMMAND_HELP;
        if (g_strcmp0(topic, "checkpoint-check") == 0)
            return VIR_CHECKPOINT_VIRSH_COMMAND_CHECK_HELP;
    }
    if (g_str_equal(words[0], "checkpoint-check")) {
        g_autoptr(virCheckpointVirshCheck) check =
            virCheckpointVirshCheckParse((const gchar *const *)words + 1);

        return check->help ? VIR_CHECKPOINT_VIRSH_COMMAND_CHECK_HELP
                           : VIR_CHECKPOINT_VIRSH_COMMAND_CHECK;
    }
    if (g_strv_contains(virCheckpointVirshLocal, words[0]))
        return VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS;
    if (g_str_equal(words[0], "blockcopy")) {
        g_autoptr(virCheckpointVirshOptions) options = NULL;

        options = virCheckpointVirshOptionsParse((const gchar *const *)words + 1);
        if (options->help)
            return VIR_CHECKPOINT_VIRSH_COMMAND_HELP;
        return options->ours ? VIR_CHECKPOINT_VIRSH_COMMAND_BLOCKCOPY
                             : VIR_CHECKPOINT_VIRSH_COMMAND_STOCK;
    }
    if (virCheckpointVirshArgsAsksHelp(words))
        return VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS;
    if (g_str_has_prefix(words[0], "checkpoint-"))
        return VIR_CHECKPOINT_VIRSH_COMMAND_NEEDED;
    return VIR_CHECKPOINT_VIRSH_COMMAND_STOCK;
}

/* A string of commands: what the most demanding of them needs. */
static virCheckpointVirshCommand
virCheckpointVirshArgsClassifyString(const gchar *text)
{
    g_autoptr(GPtrArray) commands = virCheckpointVirshArgsSplit(text);
    virCheckpointVirshCommand most = VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS;
    gsize i;

    for (i = 0; commands && i < commands->len; i++) {
        virCheckpointVirshCommand one =
            virCheckpointVirshArgsClassifyOne(g_ptr_array_index(commands, i));

        if (one == VIR_CHECKPOINT_VIRSH_COMMAND_BLOCKCOPY ||
            one == VIR_CHECKPOINT_VIRSH_COMMAND_CHECK)
            return VIR_CHECKPOINT_VIRSH_COMMAND_BATCH;
        if ((one == VIR_CHECKPOINT_VIRSH_COMMAND_HELP ||
             one == VIR_CHECKPOINT_VIRSH_COMMAND_CHECK_HELP) &&
            commands->len > 1)
            continue;
        most = MAX(most, one);
    }
    return most;
}

virCheckpointVirshCommand
virCheckpointVirshArgsClassify(const virCheckpointVirshArgs *args)
{
    if (args->asIs)
        return VIR_CHECKPOINT_VIRSH_COMMAND_AS_IS;
    if (args->first >= args->argc)
        return VIR_CHECKPOINT_VIRSH_COMMAND_STOCK;
    if (args->first == args->argc - 1)
        return virCheckpointVirshArgsClassifyString(args->argv[args->first]);
    return virCheckpointVirshArgsClassifyOne(args->argv + args->first);
}
