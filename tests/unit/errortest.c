/*
 * errortest.c: what a client reads of an error
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"

#include <dlfcn.h>
#include <gio/gio.h>
#include <string.h>

/* Codes that the daemon uses, with libvirt 9.0's sentence for the detail "x". */
static const struct {
    gint code;
    const gchar *full;
    const gchar *alone;
} testTexts[] = {
    {VIR_ERR_INTERNAL_ERROR, "internal error: x", "internal error"},
    {VIR_ERR_NO_SUPPORT, "this function is not supported by the connection driver: x",
     "this function is not supported by the connection driver"},
    {VIR_ERR_INVALID_ARG, "invalid argument: x", "invalid argument"},
    {VIR_ERR_OPERATION_FAILED, "operation failed: x", "operation failed"},
    {VIR_ERR_XML_ERROR, "XML error: x",
     "XML description is invalid or not well formed"},
    {VIR_ERR_XML_DETAIL, "x", "parser error"},
    {VIR_ERR_OPERATION_DENIED, "operation forbidden: x",
     "operation forbidden for read only access"},
    {VIR_ERR_SYSTEM_ERROR, "x", "system call error"},
    {VIR_ERR_NO_DOMAIN, "Domain not found: x", "Domain not found"},
    {VIR_ERR_OPERATION_INVALID, "Requested operation is not valid: x",
     "Requested operation is not valid"},
    {VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: x",
     "unsupported configuration"},
    {VIR_ERR_ARGUMENT_UNSUPPORTED, "argument unsupported: x", "argument unsupported"},
    {VIR_ERR_OPERATION_ABORTED, "operation aborted: x", "operation aborted"},
    {VIR_ERR_BLOCK_COPY_ACTIVE, "block copy still active: x",
     "block copy still active"},
    {VIR_ERR_OPERATION_UNSUPPORTED, "Operation not supported: x",
     "Operation not supported"},
    {VIR_ERR_RESOURCE_BUSY, "resource busy: x", "resource busy"},
    {VIR_ERR_ACCESS_DENIED, "access denied: x", "access denied"},
    {VIR_ERR_DOM_EXIST, "domain x exists already", "this domain exists already"},
    {VIR_ERR_INVALID_DOMAIN_CHECKPOINT, "Invalid domain checkpoint: x",
     "Invalid domain checkpoint"},
    {VIR_ERR_NO_DOMAIN_CHECKPOINT, "Domain checkpoint not found: x",
     "Domain checkpoint not found"},
    {VIR_ERR_CHECKPOINT_INCONSISTENT, "checkpoint inconsistent: x",
     "checkpoint inconsistent"},
};

static gchar *
testMessage(gint code, const gchar *detail)
{
    g_autoptr(GError) error = g_error_new_literal(VIR_CHECKPOINT_ERROR, code, detail);

    return virCheckpointErrorMessage(error);
}

static void
testErrorSentences(void)
{
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(testTexts); i++) {
        g_autofree gchar *full = testMessage(testTexts[i].code, "x");
        g_autofree gchar *alone = testMessage(testTexts[i].code, "");

        g_assert_cmpstr(full, ==, testTexts[i].full);
        g_assert_cmpstr(alone, ==, testTexts[i].alone);
    }
}

/* libvirt exports the function that makes its sentences, though privately. */
static void
testErrorLikeLibrary(void)
{
    const char *(*ask)(virErrorNumber, const char *) = NULL;
    void *library = dlopen("libvirt.so.0", RTLD_NOW);
    gint code;

    if (library)
        *(void **)&ask = dlsym(library, "virErrorMsg");
    if (!ask) {
        g_test_skip("no libvirt with virErrorMsg here");
        return;
    }
    for (code = 1; code <= VIR_ERR_MULTIPLE_DOMAINS; code++) {
        const gchar *format = ask(code, "x");
        g_autofree gchar *ours = testMessage(code, "@");
        g_autofree gchar *theirs = NULL;
        gchar *at = NULL;

        /* Codes that we never use have no sentence: the detail stands alone. */
        if (!format || g_str_equal(ours, "@"))
            continue;
        theirs = g_strdup(format);
        at = strstr(theirs, "%s");
        g_assert_nonnull(at);
        *at = '\0';
        at = g_strconcat(theirs, "@", at + 2, NULL);
        g_assert_cmpstr(ours, ==, at);
        g_free(at);
    }
}

static void
testErrorCodes(void)
{
    g_autoptr(GError) foreign = g_error_new(G_IO_ERROR, G_IO_ERROR_NO_SPACE, "full");
    g_autoptr(GError) zero = g_error_new(VIR_CHECKPOINT_LIBVIRT_ERROR, 0, "lost");
    g_autoptr(GError) theirs = g_error_new(VIR_CHECKPOINT_LIBVIRT_ERROR,
                                           VIR_ERR_NO_DOMAIN, "Domain not found");
    g_autofree gchar *foreignText = virCheckpointErrorMessage(foreign);
    g_autofree gchar *theirsText = virCheckpointErrorMessage(theirs);

    g_assert_cmpint(virCheckpointErrorCode(foreign), ==, VIR_ERR_OPERATION_FAILED);
    g_assert_cmpstr(foreignText, ==, "operation failed: full");
    g_assert_cmpint(virCheckpointErrorCode(zero), ==, VIR_ERR_INTERNAL_ERROR);
    g_assert_cmpint(virCheckpointErrorCode(theirs), ==, VIR_ERR_NO_DOMAIN);
    g_assert_cmpstr(theirsText, ==, "Domain not found");
}

static void
testErrorPrefixed(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *text = NULL;

    g_set_error(&error, VIR_CHECKPOINT_ERROR, VIR_ERR_XML_ERROR, "bad");
    g_prefix_error(&error, "read '%s': ", "c1");
    text = virCheckpointErrorMessage(error);
    g_assert_cmpstr(text, ==, "XML error: read 'c1': bad");
}

static void
testErrorLong(void)
{
    gint shift;

    /* Two-byte characters: the cut falls between and inside one. */
    for (shift = 0; shift < 2; shift++) {
        g_autoptr(GString) detail = g_string_new(shift ? "x" : "");
        g_autofree gchar *text = NULL;
        gint i;

        for (i = 0; i < 4000; i++)
            g_string_append(detail, "\xc3\xa9");
        text = testMessage(VIR_ERR_INVALID_ARG, detail->str);
        g_assert_cmpuint(strlen(text), <=, 4096);
        g_assert_cmpuint(strlen(text), >=, 4095);
        g_assert_true(g_utf8_validate(text, -1, NULL));
    }
}

static void
testErrorNotUtf8(void)
{
    g_autofree gchar *text = testMessage(VIR_ERR_INVALID_ARG, "a\xff z");

    g_assert_true(g_utf8_validate(text, -1, NULL));
    g_assert_true(g_str_has_prefix(text, "invalid argument: a"));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/sentences", testErrorSentences);
    g_test_add_func("/error/sentences-are-the-installed-library's",
                    testErrorLikeLibrary);
    g_test_add_func("/error/codes", testErrorCodes);
    g_test_add_func("/error/prefix-goes-behind-the-sentence", testErrorPrefixed);
    g_test_add_func("/error/long-messages-are-cut-at-a-character", testErrorLong);
    g_test_add_func("/error/messages-are-utf-8", testErrorNotUtf8);
    return g_test_run();
}
